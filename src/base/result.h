// A value or the Status that says why there is none.
//
// Threading and ownership: those of T.
// Requires: value() only when ok(); a Result is never built from an ok Status.
#pragma once

#include <utility>
#include <variant>

#include "base/status.h"

namespace tandem {

template <typename T>
class [[nodiscard]] Result {
 public:
  using value_type = T;

  Result(T value) : content_(std::in_place_index<0>, std::move(value)) {}
  Result(Status error) : content_(std::in_place_index<1>, std::move(error)) {
    TANDEM_ASSERT(!std::get<1>(content_).ok());
  }

  bool ok() const { return content_.index() == 0; }

  Status status() const { return ok() ? Status() : std::get<1>(content_); }

  T& value() & { return std::get<0>(content_); }
  const T& value() const& { return std::get<0>(content_); }
  T&& value() && { return std::get<0>(std::move(content_)); }

  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

 private:
  std::variant<T, Status> content_;
};

#define TANDEM_CONCAT_INNER(a, b) a##b
#define TANDEM_CONCAT(a, b) TANDEM_CONCAT_INNER(a, b)

// TANDEM_ASSIGN_OR_RETURN(auto file, open(path));
#define TANDEM_ASSIGN_OR_RETURN(declaration, expression) \
  TANDEM_ASSIGN_OR_RETURN_INNER(TANDEM_CONCAT(tandem_result_, __LINE__), declaration, expression)
#define TANDEM_ASSIGN_OR_RETURN_INNER(temporary, declaration, expression) \
  auto temporary = (expression);                                          \
  if (!temporary.ok()) return temporary.status();                         \
  declaration = std::move(temporary).value()

}  // namespace tandem
