// Marks what the shared library exports. Everything else is hidden.
#pragma once

#if defined(__GNUC__)
#define EXECNET_EXPORT __attribute__((visibility("default")))
#else
#define EXECNET_EXPORT
#endif
