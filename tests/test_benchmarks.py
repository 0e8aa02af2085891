"""That the benchmarks run and tell the truth; nothing here asserts a time."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # benchmarks/ is no part of the installed package

from benchmarks.__main__ import main  # noqa: E402
from benchmarks.converting import hash_of  # noqa: E402
from benchmarks.listing import listed  # noqa: E402
from benchmarks.measure import Command, Sample, Timing, alternate, python, run  # noqa: E402
from benchmarks.report import Report  # noqa: E402

READ = ["open and list the names", "read every tensor, checksums tested"]


def test_run_gives_output_and_the_peak_of_the_child_alone() -> None:
    script = """
from benchmarks.measure import python, run
for code in ("block = b'x' * (200 << 20); print('large')", "print('small')"):
    sample = run(python("-c", code))
    print(sample.output.strip(), sample.seconds > 0, sample.peak_bytes >> 20)
"""
    lines = run(python("-c", script)).output.splitlines()  # a process of its own: this one may be large
    large, small = (line.split() for line in lines)
    assert (large[:2], small[:2]) == (["large", "True"], ["small", "True"])
    assert int(large[2]) - int(small[2]) > 150


def test_run_tells_what_a_failing_command_printed() -> None:
    with pytest.raises(RuntimeError, match="ended with 3:\nno such model"):
        run(python("-c", "import sys; print('no such model'); sys.exit(3)"))


def test_alternate_warms_up_takes_turns_and_cleans(tmp_path: Path) -> None:
    log = tmp_path / "log"
    script = "import sys; open(sys.argv[1], 'a').write(sys.argv[2]); open(sys.argv[3], 'x')"
    commands = {
        name: Command(python("-c", script, str(log), name, str(tmp_path / name)), [tmp_path / name]) for name in "ab"
    }
    timings = alternate(commands, 3)
    assert log.read_text() == "baabbaab"
    assert {name: len(timing.samples) for name, timing in timings.items()} == {"a": 3, "b": 3}


def test_a_directory_is_cleaned_too(tmp_path: Path) -> None:
    made = tmp_path / "saved_model"
    (made / "variables").mkdir(parents=True)
    Command([], [made, tmp_path / "not made yet"]).clean()
    assert not made.exists()


def test_timing_gives_median_best_peak_and_last_output() -> None:
    timing = Timing((Sample(3.0, 10, "x"), Sample(1.0, 30, "y"), Sample(2.0, 20, "z")))
    assert (timing.median, timing.best, timing.peak_bytes, timing.output) == (2.0, 1.0, 30, "z")


@pytest.mark.parametrize(("is_equal", "met", "status"), [(True, True, 0), (True, False, 0), (False, True, 1)])
def test_only_a_difference_fails(is_equal: bool, met: bool, status: int, capsys: pytest.CaptureFixture[str]) -> None:
    report = Report()
    report.equal("model", is_equal, "ours 1, theirs 2")
    report.target("quick", met)
    assert report.finish() == status
    printed = capsys.readouterr().out
    assert ("outputs equal" in printed) == is_equal
    assert ("ours 1, theirs 2" in printed) != is_equal
    assert ("MISSED  quick" in printed) != met


def test_table_shows_multiples_of_the_base(capsys: pytest.CaptureFixture[str]) -> None:
    Report().table({"cp": Timing((Sample(0.5, 1, ""),)), "ours": Timing((Sample(0.75, 40_000_000, ""),))}, "cp")
    assert capsys.readouterr().out.splitlines()[-1].split() == [
        "ours",
        "0.750",
        "s",
        "0.750",
        "s",
        "40.0",
        "MB",
        "1.50",
    ]


def test_an_unknown_part_is_refused_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--quick", "larg"])
    assert "no part 'larg'; there are main, freeze, checkpoint, import, small" in capsys.readouterr().err


def test_imports_are_measured_without_tensorflow(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--quick", "import"]) == 0
    assert "import graph_restore after numpy" in capsys.readouterr().out


@pytest.mark.tensorflow
def test_the_small_model_is_frozen_by_both_with_equal_outputs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--quick", "small", "--work", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "small model: outputs equal" in printed
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == []
    model = json.loads((tmp_path / "digits" / "model.json").read_text())
    assert model["parameters"] == 5 * 5 * 16 + 16 + 5 * 5 * 16 * 32 + 32 + 7 * 7 * 32 * 100 + 100 + 100 * 10 + 10


@pytest.mark.tensorflow
def test_all_about_checkpoints_gives_equal_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--quick", "checkpoint", "--work", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    equal = [line.removesuffix(": outputs equal") for line in printed.splitlines() if line.endswith("outputs equal")]
    assert equal == [*READ, "listing", READ[-1], "V2 to safetensors", "V2 to V2"]
    assert "Listing 100 tensors" in printed
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == []


def test_a_listing_that_lacks_a_tensor_differs() -> None:
    lines = [
        "a model of 2 tensors",
        "  a/w      float32  [3, 4]  48 bytes  slot of b",
        "  b  int64  []  8 bytes",
        "2 tensors",
    ]
    assert listed("\n".join(lines)) == ["a/w [3, 4]", "b []"]


def test_hash_of_a_safetensors_file_counts_every_byte(tmp_path: Path) -> None:
    def written(content: bytes) -> str:
        header = b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
        (tmp_path / "file").write_bytes(len(header).to_bytes(8, "little") + header + content)
        return hash_of(str(tmp_path / "file"))

    expected = hashlib.sha256(b"w" + b"float32 (2,)" + bytes(8)).hexdigest()
    assert written(bytes(8)) == expected
    assert written(bytes(7) + b"\x01") != expected
