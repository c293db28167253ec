// The guard as a program of its own.
#include "guard.hpp"

int main(int argc, char** argv, char** envp) { execnet::guard::run(argc, argv, envp, true); }
