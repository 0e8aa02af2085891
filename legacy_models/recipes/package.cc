// Writes packages/matmul-tf2.21.0.pbmm with TensorFlow's own writer: y = x w, w = [[1], [2], [3]] mapped.
//
//     make_package packages/matmul-tf2.21.0.pbmm
//
// Built like examples/cpp/memmapped/run_memmapped.cc.

#include <cstdio>
#include <string>

#include "tensorflow/core/framework/graph.pb.h"
#include "tensorflow/core/framework/tensor.h"
#include "tensorflow/core/platform/env.h"
#include "tensorflow/core/util/memmapped_file_system.h"
#include "tensorflow/core/util/memmapped_file_system_writer.h"

int main(int argc, char** argv) {
  using namespace tensorflow;
  const std::string region = "memmapped_package://w";
  Tensor w(DT_FLOAT, TensorShape({3, 1}));
  for (int i = 0; i < 3; ++i) w.flat<float>()(i) = i + 1;

  GraphDef graph;
  graph.mutable_versions()->set_producer(2474);
  NodeDef* node = graph.add_node();
  node->set_name("x");
  node->set_op("Placeholder");
  (*node->mutable_attr())["dtype"].set_type(DT_FLOAT);
  node = graph.add_node();
  node->set_name("w");
  node->set_op("ImmutableConst");
  (*node->mutable_attr())["dtype"].set_type(DT_FLOAT);
  auto* shape = (*node->mutable_attr())["shape"].mutable_shape();
  shape->add_dim()->set_size(3);
  shape->add_dim()->set_size(1);
  (*node->mutable_attr())["memory_region_name"].set_s(region);
  node = graph.add_node();
  node->set_name("y");
  node->set_op("MatMul");
  node->add_input("x");
  node->add_input("w");
  (*node->mutable_attr())["T"].set_type(DT_FLOAT);

  MemmappedFileSystemWriter writer;
  absl::Status status = writer.InitializeToFile(Env::Default(), argv[1]);
  status.Update(writer.SaveTensor(w, region));
  status.Update(writer.SaveProtobuf(graph, MemmappedFileSystem::kMemmappedPackageDefaultGraphDef));
  status.Update(writer.FlushAndClose());
  std::printf("%s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
