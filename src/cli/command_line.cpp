#include "command_line.h"

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>

#include "suggest.h"

namespace tandem::cli {
namespace {

class UsageFormatter : public CLI::Formatter {
 public:
  std::string make_option_opts(const CLI::Option* option) const override {
    return option->get_type_size() == 0 ? "" : " " + option->get_type_name();
  }
};

bool begins_with_option(const std::string& argument, const std::string& name) {
  if (!argument.starts_with(name)) return false;
  const bool is_short = name.size() == 2;
  return is_short || argument.size() == name.size() || argument[name.size()] == '=';
}

// The name of "-c,--ctx" that was typed.
std::string typed_name(const std::string& names, const Arguments& arguments) {
  std::string name;
  for (size_t at = 0; at <= names.size(); at += name.size() + 1) {
    name = names.substr(at, names.find(',', at) - at);
    for (const std::string& argument : arguments) {
      if (begins_with_option(argument, name)) return name;
    }
  }
  return name;
}

std::string quoted(const std::string& text) { return "'" + text + "'"; }

}  // namespace

CommandLine::CommandLine(std::string name, std::string summary, std::string example,
                         std::string positionals)
    : name_(std::move(name)),
      summary_(std::move(summary)),
      example_(std::move(example)),
      positional_usage_(std::move(positionals)),
      app_(std::make_unique<CLI::App>()) {
  app_->set_help_flag();
  app_->add_option("arguments", positional_values_)->group("");
  const auto formatter = std::make_shared<UsageFormatter>();
  formatter->column_width(32);
  app_->formatter(formatter);
}

CommandLine::~CommandLine() = default;

void CommandLine::value(const std::string& names, const std::string& type, const std::string& help,
                        Accept accept) {
  app_->add_option_function<std::vector<std::string>>(
          names,
          [this, names, accept = std::move(accept)](const std::vector<std::string>& values) {
            for (const std::string& text : values) {
              const std::string expected = accept(text);
              if (!expected.empty()) {
                throw CLI::ValidationError(typed_name(names, arguments_) + ": expected " +
                                           expected + ", found " + quoted(text));
              }
            }
          },
          help)
      ->group(group_)
      ->type_name(type)
      ->type_size(1)
      ->expected(1)
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
}

void CommandLine::flag(const std::string& names, bool& target, const std::string& help) {
  app_->add_flag(names, target, help)->group(group_);
}

void CommandLine::text(const std::string& names, std::string& target, const std::string& type,
                       const std::string& help) {
  value(names, type, help, [&target](const std::string& text) {
    target = text;
    return std::string();
  });
}

void CommandLine::text(const std::string& names, std::optional<std::string>& target,
                       const std::string& type, const std::string& help) {
  value(names, type, help, [&target](const std::string& text) {
    target = text;
    return std::string();
  });
}

void CommandLine::texts(const std::string& names, std::vector<std::string>& targets,
                        const std::string& type, const std::string& help) {
  value(names, type, help, [&targets](const std::string& text) {
    if (text.empty()) return std::string("a text that is not empty");
    targets.push_back(text);
    return std::string();
  });
}

void CommandLine::choice(const std::string& names, std::string& target,
                         std::vector<std::string> choices, const std::string& help) {
  std::string listed;
  for (const std::string& choice : choices) listed += (listed.empty() ? "" : "|") + choice;
  value(names, listed, help,
        [&target, listed, choices = std::move(choices)](const std::string& text) {
          if (std::find(choices.begin(), choices.end(), text) == choices.end())
            return "one of " + listed;
          target = text;
          return std::string();
        });
}

void CommandLine::require_least_most(const std::string& names, const std::string& help,
                                     int64_t least, int64_t most,
                                     std::function<void(int64_t)> set) {
  value(names, "N", help, [least, most, set = std::move(set)](const std::string& text) {
    std::optional<int64_t> number = parse_integer(text);
    if (!number && least >= 0) {
      const auto size = parse_size(text);
      if (size && *size <= static_cast<uint64_t>(INT64_MAX)) number = static_cast<int64_t>(*size);
    }
    if (!number || *number < least || *number > most) {
      return "a whole number from " + std::to_string(least) + " to " + std::to_string(most);
    }
    set(*number);
    return std::string();
  });
}

void CommandLine::require_real(const std::string& names, const std::string& help, double least,
                               double most, std::function<void(double)> set) {
  value(names, "X", help, [least, most, set = std::move(set)](const std::string& text) {
    const auto number = parse_real(text);
    if (!number || *number < least || *number > most) {
      return "a number from " + format_rate(least) + " to " + format_rate(most);
    }
    set(*number);
    return std::string();
  });
}

std::optional<int> CommandLine::parse(Console& console, const Arguments& arguments) {
  app_->add_flag("-h,--help", help_wanted_, "show this help")->group("Help");
  arguments_ = arguments;
  // CLI11 takes the arguments from the back.
  std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());
  try {
    app_->parse(reversed);
  } catch (const CLI::ParseError& error) {
    if (help_wanted_ ||
        std::find(arguments.begin(), arguments.end(), "--help") != arguments.end()) {
      console.out(help());
      return kExitOk;
    }
    // An unknown option is the likeliest reason for whatever else seems wrong.
    const std::string unknown = unknown_option();
    if (unknown.empty()) return usage_error(console, error.what());
    const std::string near = nearest_option(unknown);
    if (near.empty())
      return usage_error(console, unknown + ": unknown option.",
                         "See  tandem " + name_ + " --help");
    return usage_error(console, unknown + ": unknown option. Did you mean " + near + "?");
  }
  if (help_wanted_) {
    console.out(help());
    return kExitOk;
  }
  return std::nullopt;
}

std::string CommandLine::unknown_option() const {
  for (const std::string& word : app_->remaining()) {
    if (word.size() > 1 && word[0] == '-') return word.substr(0, word.find('='));
  }
  return "";
}

std::string CommandLine::nearest_option(const std::string& flag) const {
  std::vector<std::string> candidates;
  for (const CLI::Option* option : app_->get_options()) {
    for (const std::string& name : option->get_lnames()) candidates.push_back("--" + name);
  }
  return nearest(flag, candidates);
}

std::optional<std::string> CommandLine::take_positional() {
  if (positionals_taken_ == positional_values_.size()) return std::nullopt;
  return positional_values_[positionals_taken_++];
}

std::optional<std::string> CommandLine::take_model(Console& console, const std::string& from_flag) {
  if (!from_flag.empty()) return from_flag;
  const auto model = take_positional();
  if (model && !model->empty()) return model;
  usage_error(console, model ? "the name of the model is empty." : "no model given.",
              "tandem " + name_ + " " + positional_usage_);
  return std::nullopt;
}

bool CommandLine::all_taken(Console& console) const {
  if (positionals_taken_ == positional_values_.size()) return true;
  usage_error(console, positional_values_[positionals_taken_] + ": one argument too many.",
              "tandem " + name_ + " " + positional_usage_ + "   (quote a text that has spaces)");
  return false;
}

int CommandLine::usage_error(Console& console, std::string_view text,
                             std::string_view suggestion) const {
  console.error(text, suggestion);
  return kExitUsage;
}

std::string CommandLine::help() const {
  std::string result;
  size_t at = 0;
  while (at < example_.size()) {
    const size_t end = std::min(example_.find('\n', at), example_.size());
    result += "  " + example_.substr(at, end - at) + "\n";
    at = end + 1;
  }
  result += "\n" + summary_ + "\n\nUsage: tandem " + name_;
  if (!positional_usage_.empty()) result += " " + positional_usage_;
  result += " [options]\n";
  const auto formatter = std::dynamic_pointer_cast<CLI::Formatter>(app_->get_formatter());
  std::string groups = formatter->make_groups(app_.get(), CLI::AppFormatMode::Normal);
  while (!groups.empty() && groups.back() == '\n') groups.pop_back();
  for (size_t gap; (gap = groups.find("\n\n\n")) != std::string::npos;) groups.erase(gap, 1);
  return result + groups + "\n";
}

}  // namespace tandem::cli
