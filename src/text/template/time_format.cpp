#include "text/template/time_format.h"

#include <cstdio>

namespace tandem::jinja {
namespace {

constexpr const char* kDays[] = {"Sunday",   "Monday", "Tuesday", "Wednesday",
                                 "Thursday", "Friday", "Saturday"};
constexpr const char* kMonths[] = {"January",   "February", "March",    "April",
                                   "May",       "June",     "July",     "August",
                                   "September", "October",  "November", "December"};

std::string number(int value, int width, char flag) {
  char digits[32];
  const char* pattern = flag == '-' ? "%d" : flag == '_' ? "%*d" : "%0*d";
  if (flag == '-') {
    std::snprintf(digits, sizeof digits, pattern, value);
  } else {
    std::snprintf(digits, sizeof digits, pattern, width, value);
  }
  return digits;
}

// One directive; empty text with ok == false when it is not known.
std::string directive(char letter, char flag, const std::tm& time, bool& ok) {
  const int hour12 = time.tm_hour % 12 == 0 ? 12 : time.tm_hour % 12;
  const auto two = [&](int value) { return number(value, 2, flag); };
  const auto nested = [&](const char* format) {
    const auto text = format_time(format, time);
    return text.ok() ? *text : std::string();
  };
  const std::string day = kDays[static_cast<unsigned>(time.tm_wday) % 7];
  const std::string month = kMonths[static_cast<unsigned>(time.tm_mon) % 12];
  switch (letter) {
    case 'a':
      return day.substr(0, 3);
    case 'A':
      return day;
    case 'b':
    case 'h':
      return month.substr(0, 3);
    case 'B':
      return month;
    case 'c':
      return nested("%a %b %e %H:%M:%S %Y");
    case 'd':
      return two(time.tm_mday);
    case 'D':
    case 'x':
      return nested("%m/%d/%y");
    case 'e':
      return number(time.tm_mday, 2, flag == '-' ? '-' : '_');
    case 'F':
      return nested("%Y-%m-%d");
    case 'H':
      return two(time.tm_hour);
    case 'I':
      return two(hour12);
    case 'j':
      return number(time.tm_yday + 1, 3, flag);
    case 'm':
      return two(time.tm_mon + 1);
    case 'M':
      return two(time.tm_min);
    case 'n':
      return "\n";
    case 'p':
      return time.tm_hour < 12 ? "AM" : "PM";
    case 'r':
      return nested("%I:%M:%S %p");
    case 'R':
      return nested("%H:%M");
    case 'S':
      return two(time.tm_sec);
    case 't':
      return "\t";
    case 'T':
    case 'X':
      return nested("%H:%M:%S");
    case 'u':
      return number(time.tm_wday == 0 ? 7 : time.tm_wday, 1, '0');
    case 'w':
      return number(time.tm_wday, 1, '0');
    case 'y':
      return two((time.tm_year % 100 + 100) % 100);
    case 'Y':
      return std::to_string(time.tm_year + 1900);
    case 'z':
    case 'Z':
      return "";  // a time without zone, as Python's datetime.now()
    case '%':
      return "%";
    default:
      ok = false;
      return "";
  }
}

}  // namespace

Result<std::string> format_time(std::string_view format, const std::tm& time) {
  std::string text;
  for (size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%') {
      text.push_back(format[i]);
    } else {
      char flag = '0';
      if (i + 1 < format.size() && (format[i + 1] == '-' || format[i + 1] == '_'))
        flag = format[++i];
      bool ok = i + 1 < format.size();
      if (ok) text += directive(format[++i], flag, time, ok);
      if (!ok) return unsupported("the time format has an unknown directive");
    }
    if (text.size() > 4096) return invalid_argument("the formatted time is too long");
  }
  return text;
}

}  // namespace tandem::jinja
