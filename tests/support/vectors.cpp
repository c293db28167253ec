#include "vectors.hpp"

#include <fstream>
#include <stdexcept>

#include "wire/deflate.hpp"
#include "wire/frame.hpp"

namespace execnet::testing {
namespace {

std::string frame(wire::FrameType type, std::uint8_t flags, std::uint32_t channel, std::string_view payload) {
  const auto header = wire::pack({.type = type,
                                  .flags = flags,
                                  .channel = channel,
                                  .length = static_cast<std::uint32_t>(payload.size()),
                                  .credit = 0});
  return std::string(header.data(), header.size()).append(payload);
}

// As DEFLATED frames, of one stream.
std::string deflated(wire::Deflater& deflater, const std::string& frames) {
  base::Buffer unit;
  deflater.deflate(frames, wire::Deflater::kFast, unit);
  const auto header = wire::pack({.type = wire::FrameType::kDeflated,
                                  .length = static_cast<std::uint32_t>(unit.size()),
                                  .credit = static_cast<std::uint32_t>(frames.size())});
  return std::string(header.data(), header.size()).append(unit.view());
}

}  // namespace

std::vector<std::vector<std::string>> rows(const std::string& file) {
  const std::string path = EXECNET_SOURCE_DIR "/tests/vectors/" + file;
  std::ifstream in(path);
  if (!in) {
    throw std::runtime_error("cannot read " + path);
  }
  std::vector<std::vector<std::string>> rows;
  for (std::string line; std::getline(in, line);) {
    if (line.empty() || line.front() == '#') {
      continue;
    }
    auto& row = rows.emplace_back();
    std::size_t start = 0;
    for (std::size_t bar = 0; (bar = line.find(" | ", start)) != std::string::npos; start = bar + 3) {
      row.push_back(line.substr(start, bar - start));
    }
    row.push_back(line.substr(start));
  }
  return rows;
}

std::string from_hex(std::string_view hex) {
  std::string bytes;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2) {
    bytes.push_back(static_cast<char>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16)));
  }
  return bytes;
}

std::vector<std::string> dumps_seeds() {
  std::vector<std::string> seeds;
  for (const auto& row : rows("values.txt")) {
    seeds.push_back(from_hex(row.at(2)));
  }
  for (const auto& row : rows("malformed.txt")) {
    seeds.push_back(from_hex(row.at(2)));
  }
  return seeds;
}

std::vector<std::string> frames_seeds() {
  constexpr std::size_t kLongest = 70'000;  // longer than the parser's buffer
  using wire::FrameType;
  std::vector<std::string> seeds;
  std::string all;
  for (const auto& row : rows("frames.txt")) {
    const std::string header = from_hex(row.at(1));
    seeds.push_back(header);
    if (row.at(2) != "refused") {
      const std::uint32_t length = wire::unpack(std::span<const char, wire::kHeaderSize>(header)).length;
      if (length <= kLongest) {
        seeds.back() += std::string(length, 'x');
        all += seeds.back();
      }
    }
  }
  seeds.push_back(std::move(all));
  for (const std::size_t size : {std::size_t{16'369}, std::size_t{20'000}, kLongest}) {
    seeds.push_back(frame(FrameType::kData, 0, 1, "before") + frame(FrameType::kData, 0, 1, std::string(size, 'x')) +
                    frame(FrameType::kData, 0, 1, "after"));
  }
  const std::string first = frame(FrameType::kData, wire::kMore, 1, "first") +
                            frame(FrameType::kData, wire::kMore, 3, "of another") +
                            frame(FrameType::kData, wire::kMore, 1, "second");
  seeds.push_back(first + frame(FrameType::kData, 0, 1, "last"));
  seeds.push_back(first + frame(FrameType::kData, wire::kAbort, 1, "") + frame(FrameType::kData, 0, 1, "whole"));
  seeds.push_back(first + frame(FrameType::kCloseError, 0, 1, "mixed up"));
  wire::Deflater deflater;
  const std::string units = deflated(deflater, first) + deflated(deflater, frame(FrameType::kData, 0, 1, "last"));
  seeds.push_back(units);
  seeds.push_back(units + units);
  wire::Deflater other;
  seeds.push_back(deflated(other, units));
  seeds.push_back(deflated(other, std::string(kLongest, '\0')));
  return seeds;
}

std::vector<std::string> specs_seeds() {
  std::vector<std::string> seeds;
  for (auto& row : rows("specs.txt")) {
    seeds.push_back(std::move(row.at(0)));
  }
  return seeds;
}

std::vector<std::string> seeds_of(const std::string& name) {
  std::vector<std::string> seeds = name == "decoder"  ? dumps_seeds()
                                   : name == "frames" ? frames_seeds()
                                   : name == "specs"  ? specs_seeds()
                                                      : throw std::runtime_error("no fuzz target " + name);
  for (const auto& row : rows("crashed.txt")) {
    if (row.at(0) == name) {
      seeds.push_back(from_hex(row.at(2)));
    }
  }
  return seeds;
}

}  // namespace execnet::testing
