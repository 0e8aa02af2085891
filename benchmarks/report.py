"""Tables of timings and the list of targets, as text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from benchmarks.measure import Timing


@dataclass
class Report:
    """What was measured, printed as it comes in; `targets` are (text, met) and `differences` make the run fail."""

    targets: list[tuple[str, bool]] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)

    def heading(self, text: str) -> None:
        """A line over a table."""
        print(f"\n{text}\n{'-' * len(text)}", flush=True)

    def line(self, text: str) -> None:
        """Any line."""
        print(text, flush=True)

    def table(self, timings: Mapping[str, Timing], base: str) -> None:
        """One command a row, its median as a multiple of the row `base`."""
        width = max(map(len, timings))
        self.line(f"{'':{width}}   median      min     peak memory   median / {base}")
        for name, timing in timings.items():
            ratio = timing.median / timings[base].median
            peak = f"{timing.peak_bytes / 1e6:9.1f} MB"
            self.line(f"{name:{width}}  {timing.median:6.3f} s  {timing.best:6.3f} s  {peak}  {ratio:9.2f}")

    def target(self, text: str, met: bool) -> None:
        """A goal and whether it was reached; it never makes the run fail."""
        self.targets.append((text, met))

    def at_most(self, text: str, value: float, limit: float, unit: str = "times") -> None:
        """A goal that a number must not pass."""
        self.target(f"{text}: {value:.4g} {unit}, wanted at most {limit:g}", value <= limit)

    def at_least(self, text: str, value: float, limit: float, unit: str = "times") -> None:
        """A goal that a number must reach."""
        self.target(f"{text}: {value:.4g} {unit}, wanted at least {limit:g}", value >= limit)

    def equal(self, what: str, is_equal: bool, difference: str = "") -> None:
        """Whether two results agree to the last bit; a disagreement makes the run fail."""
        self.line(f"{what}: outputs equal" if is_equal else f"{what}: OUTPUTS DIFFER {difference}")
        if not is_equal:
            self.differences.append(f"{what} {difference}".strip())

    def finish(self) -> int:
        """Print the targets; the exit status."""
        self.heading("Targets")
        for text, met in self.targets:
            self.line(f"{'met   ' if met else 'MISSED'}  {text}")
        for text in self.differences:
            self.line(f"DIFFERS {text}")
        return 1 if self.differences else 0
