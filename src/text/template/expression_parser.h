// The expressions of the grammar, loosest binding first, as Jinja's own parser orders them.
#pragma once

#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "text/template/ast.h"
#include "text/template/lexer.h"

namespace tandem::jinja {

class ExpressionParser {
 public:
  ExpressionParser(std::vector<Token> tokens, Syntax& syntax)
      : tokens_(std::move(tokens)), syntax_(syntax) {}

 protected:
  // One expression, or several with commas between them as a tuple.
  Result<ExpressionPtr> tuple(bool conditional = true);
  Result<ExpressionPtr> expression(bool conditional = true);
  // "| a | b(1)" applied to `input`; gives `input` back when there is none.
  Result<ExpressionPtr> filter_chain(ExpressionPtr input);
  Result<ExpressionPtr> one_filter(ExpressionPtr input);

  const Token& current() const { return tokens_[at_]; }
  void next() {
    if (at_ + 1 < tokens_.size()) ++at_;
  }
  size_t position() const { return at_; }
  bool mentions(size_t from_token, std::string_view name) const;
  bool is_operator(std::string_view text) const;
  bool is_name(std::string_view text) const;
  bool skip_operator(std::string_view text);
  bool skip_name(std::string_view text);
  Status expect(TokenKind kind, std::string_view what);
  Status fail(const std::string& what) const;
  Status too_deep() const;
  uint32_t intern(const std::string& name);
  static bool is_reserved(std::string_view name);

  uint32_t depth_ = 0;  // of nested rules being parsed

 private:
  using Rule = Result<ExpressionPtr> (ExpressionParser::*)();
  struct BinarySign {
    std::string_view text;
    Operator operation;
  };

  ExpressionPtr make(Expression::Kind kind) const;
  // Takes over the depth of the children; fails when the tree is too deep.
  Result<ExpressionPtr> finish(ExpressionPtr node) const;
  Result<ExpressionPtr> unary_node(Expression::Kind kind, ExpressionPtr operand, const Token& at);
  Result<ExpressionPtr> left_associative(Rule operand, const std::vector<BinarySign>& signs);

  Result<ExpressionPtr> conditional();
  Result<ExpressionPtr> disjunction();
  Result<ExpressionPtr> conjunction();
  Result<ExpressionPtr> negation();
  Result<ExpressionPtr> comparison();
  Result<ExpressionPtr> sum();
  Result<ExpressionPtr> concatenation();
  Result<ExpressionPtr> product();
  Result<ExpressionPtr> power();
  Result<ExpressionPtr> unary() { return signed_operand(true); }
  Result<ExpressionPtr> signed_operand(bool with_filters);
  Result<ExpressionPtr> primary();
  Result<ExpressionPtr> name_or_constant();
  Result<ExpressionPtr> parenthesised();
  Result<ExpressionPtr> list();
  Result<ExpressionPtr> dict();
  Result<ExpressionPtr> postfix(ExpressionPtr node);
  Result<ExpressionPtr> filters_and_tests(ExpressionPtr node);
  Result<ExpressionPtr> attribute(ExpressionPtr node);
  Result<ExpressionPtr> subscript(ExpressionPtr node);
  Result<ExpressionPtr> call(ExpressionPtr node);
  Result<ExpressionPtr> test(ExpressionPtr node);
  Status arguments(Expression& node);
  bool starts_test_argument() const;
  bool ends_tuple() const;

  std::vector<Token> tokens_;
  size_t at_ = 0;
  Syntax& syntax_;
  std::unordered_map<std::string, uint32_t> name_index_;
};

}  // namespace tandem::jinja
