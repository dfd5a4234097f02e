#include "text/template/expression_parser.h"

#include <algorithm>

#include "text/template/parser.h"

namespace tandem::jinja {
namespace {

using Kind = Expression::Kind;

class DepthGuard {
 public:
  explicit DepthGuard(uint32_t& depth) : depth_(depth) { ++depth_; }
  ~DepthGuard() { --depth_; }
  DepthGuard(const DepthGuard&) = delete;
  DepthGuard& operator=(const DepthGuard&) = delete;

 private:
  uint32_t& depth_;
};

}  // namespace

bool ExpressionParser::mentions(size_t from_token, std::string_view name) const {
  const auto begin = tokens_.begin() + static_cast<std::ptrdiff_t>(from_token);
  const auto end = tokens_.begin() + static_cast<std::ptrdiff_t>(at_);
  return std::any_of(begin, end, [&](const Token& token) {
    return token.kind == TokenKind::kName && token.text == name;
  });
}

bool ExpressionParser::is_operator(std::string_view text) const {
  return current().kind == TokenKind::kOperator && current().text == text;
}

bool ExpressionParser::is_name(std::string_view text) const {
  return current().kind == TokenKind::kName && current().text == text;
}

bool ExpressionParser::skip_operator(std::string_view text) {
  const bool found = is_operator(text);
  if (found) next();
  return found;
}

bool ExpressionParser::skip_name(std::string_view text) {
  const bool found = is_name(text);
  if (found) next();
  return found;
}

Status ExpressionParser::expect(TokenKind kind, std::string_view what) {
  if (current().kind != kind) return fail("expected " + std::string(what));
  next();
  return ok_status();
}

Status ExpressionParser::fail(const std::string& what) const {
  std::string found;
  switch (current().kind) {
    case TokenKind::kEnd:
      found = "the end of the template";
      break;
    case TokenKind::kBlockEnd:
      found = "'%}'";
      break;
    case TokenKind::kVariableEnd:
      found = "'}}'";
      break;
    case TokenKind::kInteger:
    case TokenKind::kFloat:
      found = "a number";
      break;
    case TokenKind::kString:
      found = "a string";
      break;
    default:
      found = "'" + current().text.substr(0, 40) + "'";
  }
  return template_error(Code::kCorrupt, current().line, current().offset,
                        what + ", found " + found);
}

Status ExpressionParser::too_deep() const {
  return template_error(Code::kUnsupported, current().line, current().offset,
                        "nested deeper than " + std::to_string(kMaxSyntaxDepth) + " levels");
}

uint32_t ExpressionParser::intern(const std::string& name) {
  const auto [entry, added] =
      name_index_.emplace(name, static_cast<uint32_t>(syntax_.names.size()));
  if (added) syntax_.names.push_back(name);
  return entry->second;
}

bool ExpressionParser::is_reserved(std::string_view name) {
  static constexpr std::string_view kNames[] = {"true", "True", "false", "False", "none", "None"};
  return std::find(std::begin(kNames), std::end(kNames), name) != std::end(kNames);
}

ExpressionPtr ExpressionParser::make(Kind kind) const {
  auto node = std::make_unique<Expression>();
  node->kind = kind;
  node->line = current().line;
  node->offset = current().offset;
  return node;
}

Result<ExpressionPtr> ExpressionParser::finish(ExpressionPtr node) const {
  for (const ExpressionPtr& child : node->children) {
    if (child) node->depth = std::max(node->depth, child->depth + 1);
  }
  for (const auto& [name, child] : node->keywords) {
    node->depth = std::max(node->depth, child->depth + 1);
  }
  if (node->depth > kMaxSyntaxDepth) return too_deep();
  return node;
}

Result<ExpressionPtr> ExpressionParser::unary_node(Kind kind, ExpressionPtr operand,
                                                   const Token& at) {
  ExpressionPtr node = make(kind);
  node->line = at.line;
  node->offset = at.offset;
  node->children.push_back(std::move(operand));
  return finish(std::move(node));
}

Result<ExpressionPtr> ExpressionParser::left_associative(Rule operand,
                                                         const std::vector<BinarySign>& signs) {
  TANDEM_ASSIGN_OR_RETURN(ExpressionPtr left, (this->*operand)());
  while (true) {
    const auto sign = std::find_if(signs.begin(), signs.end(), [&](const BinarySign& candidate) {
      return is_operator(candidate.text);
    });
    if (sign == signs.end()) return left;
    ExpressionPtr node = make(Kind::kBinary);
    next();
    node->operators.push_back(sign->operation);
    node->children.push_back(std::move(left));
    TANDEM_ASSIGN_OR_RETURN(ExpressionPtr right, (this->*operand)());
    node->children.push_back(std::move(right));
    TANDEM_ASSIGN_OR_RETURN(left, finish(std::move(node)));
  }
}

bool ExpressionParser::ends_tuple() const {
  return current().kind == TokenKind::kVariableEnd || current().kind == TokenKind::kBlockEnd ||
         is_operator(")") || is_name("recursive");
}

Result<ExpressionPtr> ExpressionParser::tuple(bool conditional) {
  ExpressionPtr node = make(Kind::kTuple);
  bool is_tuple = false;
  while (!ends_tuple()) {
    TANDEM_ASSIGN_OR_RETURN(ExpressionPtr item, expression(conditional));
    node->children.push_back(std::move(item));
    if (!skip_operator(",")) break;
    is_tuple = true;
  }
  if (node->children.empty()) return fail("expected an expression");
  if (!is_tuple) return std::move(node->children[0]);
  return finish(std::move(node));
}

Result<ExpressionPtr> ExpressionParser::expression(bool with_conditional) {
  const DepthGuard guard(depth_);
  if (depth_ > kMaxSyntaxDepth) return too_deep();
  return with_conditional ? conditional() : disjunction();
}

Result<ExpressionPtr> ExpressionParser::conditional() {
  TANDEM_ASSIGN_OR_RETURN(ExpressionPtr value, disjunction());
  while (is_name("if")) {
    ExpressionPtr node = make(Kind::kConditional);
    next();
    TANDEM_ASSIGN_OR_RETURN(ExpressionPtr condition, disjunction());
    ExpressionPtr otherwise;
    if (skip_name("else")) {
      TANDEM_ASSIGN_OR_RETURN(otherwise, expression());
    }
    node->children.push_back(std::move(value));
    node->children.push_back(std::move(condition));
    node->children.push_back(std::move(otherwise));
    TANDEM_ASSIGN_OR_RETURN(value, finish(std::move(node)));
  }
  return value;
}

Result<ExpressionPtr> ExpressionParser::disjunction() {
  TANDEM_ASSIGN_OR_RETURN(ExpressionPtr left, conjunction());
  while (is_name("or")) {
    ExpressionPtr node = make(Kind::kOr);
    next();
    node->children.push_back(std::move(left));
    TANDEM_ASSIGN_OR_RETURN(ExpressionPtr right, conjunction());
    node->children.push_back(std::move(right));
    TANDEM_ASSIGN_OR_RETURN(left, finish(std::move(node)));
  }
  return left;
}

Result<ExpressionPtr> ExpressionParser::conjunction() {
  TANDEM_ASSIGN_OR_RETURN(ExpressionPtr left, negation());
  while (is_name("and")) {
    ExpressionPtr node = make(Kind::kAnd);
    next();
    node->children.push_back(std::move(left));
    TANDEM_ASSIGN_OR_RETURN(ExpressionPtr right, negation());
    node->children.push_back(std::move(right));
    TANDEM_ASSIGN_OR_RETURN(left, finish(std::move(node)));
  }
  return left;
}

Result<ExpressionPtr> ExpressionParser::negation() {
  if (!is_name("not")) return comparison();
  const DepthGuard guard(depth_);
  if (depth_ > kMaxSyntaxDepth) return too_deep();
  const Token at = current();
  next();
  TANDEM_ASSIGN_OR_RETURN(ExpressionPtr operand, negation());
  return unary_node(Kind::kNot, std::move(operand), at);
}

Result<ExpressionPtr> ExpressionParser::comparison() {
  static constexpr BinarySign kSigns[] = {
      {"==", Operator::kEqual}, {"!=", Operator::kNotEqual},     {"<=", Operator::kLessEqual},
      {"<", Operator::kLess},   {">=", Operator::kGreaterEqual}, {">", Operator::kGreater}};
  ExpressionPtr node = make(Kind::kCompare);
  TANDEM_ASSIGN_OR_RETURN(ExpressionPtr first, sum());
  node->children.push_back(std::move(first));
  while (true) {
    const auto sign =
        std::find_if(std::begin(kSigns), std::end(kSigns),
                     [&](const BinarySign& candidate) { return is_operator(candidate.text); });
    if (sign != std::end(kSigns)) {
      next();
      node->operators.push_back(sign->operation);
    } else if (skip_name("in")) {
      node->operators.push_back(Operator::kIn);
    } else if (is_name("not") && at_ + 1 < tokens_.size() &&
               tokens_[at_ + 1].kind == TokenKind::kName && tokens_[at_ + 1].text == "in") {
      next();
      next();
      node->operators.push_back(Operator::kNotIn);
    } else {
      break;
    }
    TANDEM_ASSIGN_OR_RETURN(ExpressionPtr operand, sum());
    node->children.push_back(std::move(operand));
  }
  if (node->operators.empty()) return std::move(node->children[0]);
  return finish(std::move(node));
}

Result<ExpressionPtr> ExpressionParser::sum() {
  return left_associative(&ExpressionParser::concatenation,
                          {{"+", Operator::kAdd}, {"-", Operator::kSubtract}});
}

Result<ExpressionPtr> ExpressionParser::concatenation() {
  ExpressionPtr node = make(Kind::kConcat);
  do {
    TANDEM_ASSIGN_OR_RETURN(ExpressionPtr operand, product());
    node->children.push_back(std::move(operand));
  } while (skip_operator("~"));
  if (node->children.size() == 1) return std::move(node->children[0]);
  return finish(std::move(node));
}

Result<ExpressionPtr> ExpressionParser::product() {
  return left_associative(&ExpressionParser::power, {{"*", Operator::kMultiply},
                                                     {"/", Operator::kDivide},
                                                     {"//", Operator::kFloorDivide},
                                                     {"%", Operator::kModulo}});
}

Result<ExpressionPtr> ExpressionParser::power() {
  return left_associative(&ExpressionParser::unary, {{"**", Operator::kPower}});
}

Result<ExpressionPtr> ExpressionParser::signed_operand(bool with_filters) {
  ExpressionPtr node;
  if (is_operator("-") || is_operator("+")) {
    const DepthGuard guard(depth_);
    if (depth_ > kMaxSyntaxDepth) return too_deep();
    const Token at = current();
    next();
    TANDEM_ASSIGN_OR_RETURN(ExpressionPtr operand, signed_operand(false));
    const Kind kind = at.text == "-" ? Kind::kNegate : Kind::kPlus;
    TANDEM_ASSIGN_OR_RETURN(node, unary_node(kind, std::move(operand), at));
  } else {
    TANDEM_ASSIGN_OR_RETURN(node, primary());
  }
  TANDEM_ASSIGN_OR_RETURN(node, postfix(std::move(node)));
  return with_filters ? filters_and_tests(std::move(node)) : std::move(node);
}

Result<ExpressionPtr> ExpressionParser::primary() {
  const Token& token = current();
  ExpressionPtr node = make(Kind::kConstant);
  switch (token.kind) {
    case TokenKind::kName:
      return name_or_constant();
    case TokenKind::kString: {
      std::string text;
      while (current().kind == TokenKind::kString) {
        text += current().text;
        next();
      }
      node->constant = Value::trusted(std::move(text));
      return node;
    }
    case TokenKind::kInteger:
      node->constant = Value::integer(token.integer);
      next();
      return node;
    case TokenKind::kFloat:
      node->constant = Value::floating(token.number);
      next();
      return node;
    default:
      break;
  }
  if (is_operator("(")) return parenthesised();
  if (is_operator("[")) return list();
  if (is_operator("{")) return dict();
  return fail("expected an expression");
}

Result<ExpressionPtr> ExpressionParser::name_or_constant() {
  const std::string& text = current().text;
  ExpressionPtr node = make(Kind::kConstant);
  if (text == "true" || text == "True" || text == "false" || text == "False") {
    node->constant = Value::boolean(text == "true" || text == "True");
  } else if (is_reserved(text)) {
    node->constant = Value::none();
  } else {
    node->kind = Kind::kName;
    node->name = intern(text);
  }
  next();
  return node;
}

Result<ExpressionPtr> ExpressionParser::parenthesised() {
  ExpressionPtr empty = make(Kind::kTuple);
  next();
  if (skip_operator(")")) return empty;
  TANDEM_ASSIGN_OR_RETURN(ExpressionPtr node, tuple());
  if (!skip_operator(")")) return fail("expected ')'");
  return node;
}

Result<ExpressionPtr> ExpressionParser::list() {
  ExpressionPtr node = make(Kind::kList);
  next();
  while (!skip_operator("]")) {
    if (!node->children.empty() && !skip_operator(",")) return fail("expected ',' or ']'");
    if (skip_operator("]")) break;
    TANDEM_ASSIGN_OR_RETURN(ExpressionPtr item, expression());
    node->children.push_back(std::move(item));
  }
  return finish(std::move(node));
}

Result<ExpressionPtr> ExpressionParser::dict() {
  ExpressionPtr node = make(Kind::kDict);
  next();
  while (!skip_operator("}")) {
    if (!node->children.empty() && !skip_operator(",")) return fail("expected ',' or '}'");
    if (skip_operator("}")) break;
    TANDEM_ASSIGN_OR_RETURN(ExpressionPtr key, expression());
    if (!skip_operator(":")) return fail("expected ':'");
    TANDEM_ASSIGN_OR_RETURN(ExpressionPtr value, expression());
    node->children.push_back(std::move(key));
    node->children.push_back(std::move(value));
  }
  return finish(std::move(node));
}

Result<ExpressionPtr> ExpressionParser::postfix(ExpressionPtr node) {
  while (true) {
    if (is_operator(".")) {
      TANDEM_ASSIGN_OR_RETURN(node, attribute(std::move(node)));
    } else if (is_operator("[")) {
      TANDEM_ASSIGN_OR_RETURN(node, subscript(std::move(node)));
    } else if (is_operator("(")) {
      TANDEM_ASSIGN_OR_RETURN(node, call(std::move(node)));
    } else {
      return node;
    }
  }
}

Result<ExpressionPtr> ExpressionParser::filters_and_tests(ExpressionPtr node) {
  while (true) {
    if (is_operator("|")) {
      TANDEM_ASSIGN_OR_RETURN(node, filter_chain(std::move(node)));
    } else if (is_name("is")) {
      TANDEM_ASSIGN_OR_RETURN(node, test(std::move(node)));
    } else if (is_operator("(")) {
      TANDEM_ASSIGN_OR_RETURN(node, call(std::move(node)));
    } else {
      return node;
    }
  }
}

Result<ExpressionPtr> ExpressionParser::attribute(ExpressionPtr object) {
  next();  // "."
  ExpressionPtr node = make(Kind::kAttribute);
  node->children.push_back(std::move(object));
  if (current().kind == TokenKind::kName) {
    node->text = current().text;
  } else if (current().kind == TokenKind::kInteger) {
    node->kind = Kind::kItem;
    ExpressionPtr index = make(Kind::kConstant);
    index->constant = Value::integer(current().integer);
    node->children.push_back(std::move(index));
  } else {
    return fail("expected a name after '.'");
  }
  next();
  return finish(std::move(node));
}

Result<ExpressionPtr> ExpressionParser::subscript(ExpressionPtr object) {
  ExpressionPtr node = make(Kind::kItem);
  node->children.push_back(std::move(object));
  next();  // "["
  ExpressionPtr parts[3];
  size_t colons = 0;
  while (!skip_operator("]")) {
    if (skip_operator(":")) {
      if (++colons > 2) return fail("a slice has at most three parts");
    } else if (parts[colons]) {
      return fail("expected ':' or ']'");
    } else {
      TANDEM_ASSIGN_OR_RETURN(parts[colons], expression());
    }
  }
  if (colons == 0 && !parts[0]) return fail("expected an index");
  if (colons > 0) node->kind = Kind::kSlice;
  for (size_t i = 0; i < (colons > 0 ? 3u : 1u); ++i) node->children.push_back(std::move(parts[i]));
  return finish(std::move(node));
}

Status ExpressionParser::arguments(Expression& node) {
  next();  // "("
  bool first = true;
  while (!skip_operator(")")) {
    if (!first && !skip_operator(",")) return fail("expected ',' or ')'");
    if (skip_operator(")")) break;
    first = false;
    if (is_operator("*") || is_operator("**")) {
      return template_error(Code::kUnsupported, current().line, current().offset,
                            "'*' and '**' in a call are not supported");
    }
    const bool named = current().kind == TokenKind::kName && at_ + 1 < tokens_.size() &&
                       tokens_[at_ + 1].kind == TokenKind::kOperator &&
                       tokens_[at_ + 1].text == "=";
    if (named) {
      std::string name = current().text;
      next();
      next();
      TANDEM_ASSIGN_OR_RETURN(ExpressionPtr value, expression());
      node.keywords.emplace_back(std::move(name), std::move(value));
    } else {
      if (!node.keywords.empty()) return fail("an argument without a name follows one with");
      TANDEM_ASSIGN_OR_RETURN(ExpressionPtr value, expression());
      node.children.push_back(std::move(value));
    }
  }
  return ok_status();
}

Result<ExpressionPtr> ExpressionParser::call(ExpressionPtr callee) {
  ExpressionPtr node = make(Kind::kCall);
  node->line = callee->line;
  node->children.push_back(std::move(callee));
  TANDEM_RETURN_IF_ERROR(arguments(*node));
  return finish(std::move(node));
}

Result<ExpressionPtr> ExpressionParser::one_filter(ExpressionPtr input) {
  if (current().kind != TokenKind::kName) return fail("expected the name of a filter");
  ExpressionPtr node = make(Kind::kFilter);
  node->text = current().text;
  node->filter = find_filter(node->text);
  node->children.push_back(std::move(input));
  next();
  if (is_operator("(")) TANDEM_RETURN_IF_ERROR(arguments(*node));
  return finish(std::move(node));
}

Result<ExpressionPtr> ExpressionParser::filter_chain(ExpressionPtr input) {
  while (skip_operator("|")) {
    TANDEM_ASSIGN_OR_RETURN(input, one_filter(std::move(input)));
  }
  return input;
}

bool ExpressionParser::starts_test_argument() const {
  switch (current().kind) {
    case TokenKind::kName:
      return !is_name("else") && !is_name("or") && !is_name("and");
    case TokenKind::kString:
    case TokenKind::kInteger:
    case TokenKind::kFloat:
      return true;
    default:
      return is_operator("[") || is_operator("{");
  }
}

Result<ExpressionPtr> ExpressionParser::test(ExpressionPtr operand) {
  const Token at = current();
  next();  // "is"
  const bool negated = skip_name("not");
  if (current().kind != TokenKind::kName) return fail("expected the name of a test after 'is'");
  ExpressionPtr node = make(Kind::kTest);
  node->text = current().text;
  node->test = find_test(node->text);
  node->children.push_back(std::move(operand));
  next();
  if (is_operator("(")) {
    TANDEM_RETURN_IF_ERROR(arguments(*node));
  } else if (starts_test_argument()) {
    if (is_name("is")) return fail("tests cannot be chained with 'is'");
    TANDEM_ASSIGN_OR_RETURN(ExpressionPtr argument, primary());
    TANDEM_ASSIGN_OR_RETURN(argument, postfix(std::move(argument)));
    node->children.push_back(std::move(argument));
  }
  TANDEM_ASSIGN_OR_RETURN(node, finish(std::move(node)));
  return negated ? unary_node(Kind::kNot, std::move(node), at) : std::move(node);
}

}  // namespace tandem::jinja
