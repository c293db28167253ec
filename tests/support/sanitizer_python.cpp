// A Python interpreter whose program contains the sanitizer. The runtime must be there before anything
// else; a plain interpreter that loads an instrumented module would bring it too late. This is C++, so that the
// runtime finds the functions of C++ exceptions when it starts.
#include <Python.h>

int main(int argc, char** argv) { return Py_BytesMain(argc, argv); }
