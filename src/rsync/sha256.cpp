#include "rsync/sha256.hpp"

// The plain functions are deprecated in favour of EVP, which brings megabytes of libcrypto along and a
// set-up at its first use. These bring the one algorithm, with what the processor has for it.
#define OPENSSL_SUPPRESS_DEPRECATED
#include <openssl/sha.h>

namespace execnet::core {

struct Sha256::State {
  SHA256_CTX context;
};

Sha256::Sha256() : state_(std::make_unique<State>()) { SHA256_Init(&state_->context); }

Sha256::~Sha256() = default;

void Sha256::update(std::string_view bytes) { SHA256_Update(&state_->context, bytes.data(), bytes.size()); }

Digest Sha256::digest() {
  Digest digest{};
  static_assert(sizeof digest == SHA256_DIGEST_LENGTH);
  SHA256_Final(reinterpret_cast<unsigned char*>(digest.data()), &state_->context);
  return digest;
}

}  // namespace execnet::core
