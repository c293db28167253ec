// Text as a gateway specification and as a command line: a SpecError, or what can be launched.
#include <execnet/error.hpp>
#include <execnet/xspec.hpp>
#include <string>

#include "target.hpp"
#include "transport/shell.hpp"
#include "transport/transport.hpp"

namespace execnet::fuzz {
namespace {

void check_spec(std::string_view text) {
  try {
    const XSpec spec(text);
    require(spec.text() == text, "a specification keeps its text");
    require(XSpec(spec.text()) == spec, "and is made of it again");
    for (const auto& [key, value] : spec.settings()) {
      require(spec.has(key) && spec.get(key) == value, "its keys can be asked for");
    }
    spec.validate();
    const transport::Launch launch = transport::launch_for(spec, {.executable = "python3", .native_module = ""});
    require(!launch.argv.empty(), "what is valid can be launched");
    if (const auto nice = spec.get("nice")) {
      static_cast<void>(std::stoi(*nice));  // as GatewayEnd does; what it throws ends the process
    }
  } catch (const SpecError& error) {
    require(*error.what() != '\0', "a refusal says why");
  }
}

void check_words(std::string_view text) {
  require(transport::shell_split(transport::shell_quote(text)) == std::vector{std::string(text)},
          "a quoted word is one word");
  try {
    std::string joined;
    const auto words = transport::shell_split(text);
    for (const std::string& word : words) {
      joined += transport::shell_quote(word) + ' ';
    }
    require(transport::shell_split(joined) == words, "quoted words stay the same words");
  } catch (const SpecError& error) {
    require(*error.what() != '\0', "a refusal says why");
  }
}

}  // namespace
}  // namespace execnet::fuzz

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text = execnet::fuzz::text_of(data, size);
  execnet::fuzz::check_spec(text);
  execnet::fuzz::check_words(text);
  return 0;
}
