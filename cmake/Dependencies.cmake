# What the library stands on. Of libcrypto it takes SHA-256, a few kilobytes, and of zlib deflate and inflate, some 90 KB:
# linked statically, so that neither the extension module nor a program has anything to find when it runs.
find_package(Threads REQUIRED)
set(OPENSSL_USE_STATIC_LIBS ON)
find_package(OpenSSL REQUIRED COMPONENTS Crypto)
set(ZLIB_USE_STATIC_LIBS ON)
find_package(ZLIB REQUIRED)
