// Loads a memory-mapped package (.pbmm) and runs it: float32 in, float32 out. The package's large constants stay where
// they are in the file, and are read as they are needed.
//
//     run_memmapped MODEL.pbmm FETCH [FEED SHAPE VALUES]...
//     run_memmapped model.pbmm y:0 x:0 1,4 0.5,1,-2,0
//
// Prints the shape of the fetch, and a line with its values.

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "tensorflow/core/framework/graph.pb.h"
#include "tensorflow/core/framework/tensor.h"
#include "tensorflow/core/platform/env.h"
#include "tensorflow/core/public/session.h"
#include "tensorflow/core/util/memmapped_file_system.h"

namespace {

using tensorflow::Tensor;

void Check(const absl::Status& status, const char* what) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s: %s\n", what, std::string(status.message()).c_str());
  std::exit(1);
}

template <typename Number>
std::vector<Number> Numbers(const std::string& text) {
  std::vector<Number> found;
  std::stringstream stream(text);
  for (std::string item; std::getline(stream, item, ',');) found.push_back(static_cast<Number>(std::atof(item.c_str())));
  return found;
}

Tensor MakeTensor(const std::string& shape, const std::string& values) {
  tensorflow::TensorShape sizes;
  for (int64_t size : Numbers<int64_t>(shape)) Check(sizes.AddDimWithStatus(size), ("the SHAPE " + shape).c_str());
  const std::vector<float> numbers = Numbers<float>(values);
  if (sizes.num_elements() != static_cast<int64_t>(numbers.size())) {
    std::fprintf(stderr, "shape %s asks for %lld values, found %zu\n", shape.c_str(),
                 static_cast<long long>(sizes.num_elements()), numbers.size());
    std::exit(2);
  }
  Tensor tensor(tensorflow::DT_FLOAT, sizes);
  std::copy(numbers.begin(), numbers.end(), tensor.flat<float>().data());
  return tensor;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3 || argc % 3 != 0) {
    std::fprintf(stderr, "usage: %s MODEL.pbmm FETCH [FEED SHAPE VALUES]...\n", argv[0]);
    return 2;
  }

  // The package is a file system of its own; sessions reach it through this environment, which must outlive them.
  tensorflow::MemmappedEnv env(tensorflow::Env::Default());
  Check(env.InitializeFromFile(argv[1]), "the package");

  tensorflow::GraphDef graph;
  Check(ReadBinaryProto(&env, tensorflow::MemmappedFileSystem::kMemmappedPackageDefaultGraphDef, &graph), "the graph");

  tensorflow::SessionOptions options;
  options.env = &env;
  // Constant folding would copy the mapped constants into memory.
  auto* optimizer = options.config.mutable_graph_options()->mutable_optimizer_options();
  optimizer->set_opt_level(tensorflow::OptimizerOptions::L0);
  options.config.mutable_graph_options()->mutable_rewrite_options()->set_disable_meta_optimizer(true);

  std::unique_ptr<tensorflow::Session> session(tensorflow::NewSession(options));
  if (session == nullptr) {
    std::fprintf(stderr, "no session: link with -Wl,--no-as-needed, so that the library is not dropped\n");
    return 1;
  }
  Check(session->Create(graph), "the session");

  std::vector<std::pair<std::string, Tensor>> feeds;
  for (int i = 3; i < argc; i += 3) feeds.emplace_back(argv[i], MakeTensor(argv[i + 1], argv[i + 2]));
  std::vector<Tensor> fetched;
  Check(session->Run(feeds, {argv[2]}, {}, &fetched), "the run");

  for (int i = 0; i < fetched[0].dims(); ++i) std::printf("%s%lld", i ? "," : "", static_cast<long long>(fetched[0].dim_size(i)));
  std::printf("\n");
  const auto values = fetched[0].flat<float>();
  for (int64_t i = 0; i < values.size(); ++i) std::printf("%s%.9g", i ? "," : "", values(i));
  std::printf("\n");
  Check(session->Close(), "closing");
  return 0;
}
