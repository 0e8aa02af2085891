/* Loads a frozen graph (.pb) with TensorFlow's C API and runs it: float32 in, float32 out.

       run_frozen GRAPH.pb FETCH [FEED SHAPE VALUES]...
       run_frozen frozen.pb y:0 x:0 1,4 0.5,1,-2,0

   Prints the shape of the fetch, and a line with its values. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensorflow/c/c_api.h"

enum { MAX_FEEDS = 16, MAX_DIMS = 8, MAX_COUNT = 1 << 28 };

static void fail(const char* what, const char* why) {
  fprintf(stderr, "%s: %s\n", what, why);
  exit(1);
}

static void check(const TF_Status* status, const char* what) {
  if (TF_GetCode(status) != TF_OK) fail(what, TF_Message(status));
}

static void free_data(void* data, size_t length) { free(data); }

static TF_Buffer* read_file(const char* path) {
  FILE* file = fopen(path, "rb");
  if (file == NULL) fail(path, "cannot be opened");
  fseek(file, 0, SEEK_END);
  const size_t length = (size_t)ftell(file);
  rewind(file);
  void* data = malloc(length ? length : 1);
  if (data == NULL || fread(data, 1, length, file) != length) fail(path, "cannot be read");
  fclose(file);
  TF_Buffer* buffer = TF_NewBuffer();
  buffer->data = data;
  buffer->length = length;
  buffer->data_deallocator = free_data;
  return buffer;
}

/* The output a tensor name means: `node`, or `node:1` for its second output. */
static TF_Output find(TF_Graph* graph, const char* name) {
  char node[512];
  snprintf(node, sizeof node, "%s", name);
  char* colon = strrchr(node, ':');
  TF_Output output = {NULL, colon ? atoi(colon + 1) : 0};
  if (colon) *colon = '\0';
  output.oper = TF_GraphOperationByName(graph, node);
  if (output.oper == NULL) fail(name, "the graph has no such node");
  return output;
}

static TF_Tensor* make_tensor(char* shape, char* values) {
  int64_t dims[MAX_DIMS], count = 1;
  int rank = 0;
  for (char* item = strtok(shape, ","); item; item = strtok(NULL, ",")) {
    char* end;
    if (rank == MAX_DIMS) fail("a feed", "its SHAPE has more sizes than this program takes");
    dims[rank] = strtoll(item, &end, 10);
    if (end == item || *end || dims[rank] < 0) fail(item, "a size in a SHAPE is a whole number, 0 or more");
    if (dims[rank] && count > MAX_COUNT / dims[rank]) fail("a feed", "its SHAPE asks for more values than fit");
    count *= dims[rank++];
  }
  TF_Tensor* tensor = TF_AllocateTensor(TF_FLOAT, dims, rank, (size_t)count * sizeof(float));
  float* data = TF_TensorData(tensor);
  int64_t found = 0;
  for (char* item = strtok(values, ","); item; item = strtok(NULL, ","), ++found)
    if (found < count) data[found] = strtof(item, NULL);
  if (found != count) fail("a feed", "the number of values is not what its shape asks for");
  return tensor;
}

static void print_tensor(const TF_Tensor* tensor) {
  if (TF_TensorType(tensor) != TF_FLOAT) fail("the fetch", "not of float32");
  for (int i = 0; i < TF_NumDims(tensor); ++i) printf("%s%lld", i ? "," : "", (long long)TF_Dim(tensor, i));
  const float* values = TF_TensorData(tensor);
  for (int64_t i = 0; i < TF_TensorElementCount(tensor); ++i) printf("%c%.9g", i ? ',' : '\n', values[i]);
  printf("\n");
}

int main(int argc, char** argv) {
  if (argc < 3 || argc % 3 != 0 || argc / 3 - 1 > MAX_FEEDS) {
    fprintf(stderr, "usage: %s GRAPH.pb FETCH [FEED SHAPE VALUES]...\n", argv[0]);
    return 2;
  }
  TF_Status* status = TF_NewStatus();
  TF_Graph* graph = TF_NewGraph();
  TF_Buffer* graph_def = read_file(argv[1]);
  TF_ImportGraphDefOptions* import = TF_NewImportGraphDefOptions();
  TF_GraphImportGraphDef(graph, graph_def, import, status);
  check(status, argv[1]);

  TF_SessionOptions* options = TF_NewSessionOptions();
  TF_Session* session = TF_NewSession(graph, options, status);
  check(status, "the session");

  TF_Output fetch = find(graph, argv[2]), feeds[MAX_FEEDS];
  TF_Tensor *values[MAX_FEEDS], *fetched = NULL;
  int count = 0;
  for (int i = 3; i < argc; i += 3, ++count) {
    feeds[count] = find(graph, argv[i]);
    values[count] = make_tensor(argv[i + 1], argv[i + 2]);
  }
  TF_SessionRun(session, NULL, feeds, values, count, &fetch, &fetched, 1, NULL, 0, NULL, status);
  check(status, "the run");
  print_tensor(fetched);

  TF_DeleteTensor(fetched);
  for (int i = 0; i < count; ++i) TF_DeleteTensor(values[i]);
  TF_DeleteSession(session, status);
  TF_DeleteSessionOptions(options);
  TF_DeleteImportGraphDefOptions(import);
  TF_DeleteBuffer(graph_def);
  TF_DeleteGraph(graph);
  TF_DeleteStatus(status);
  return 0;
}
