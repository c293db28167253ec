// A Python interpreter whose program carries the sanitizer: its runtime must be there before anything
// else, and a plain interpreter that loads an instrumented module is too late. C++, so that the runtime
// finds the functions of C++ exceptions when it starts.
#include <Python.h>

int main(int argc, char** argv) { return Py_BytesMain(argc, argv); }
