#include "text/template/parser.h"

#include <algorithm>
#include <unordered_map>

#include "text/template/expression_parser.h"

namespace tandem::jinja {
namespace {

class Parser : private ExpressionParser {
 public:
  Parser(std::vector<Token> tokens, Syntax& syntax)
      : ExpressionParser(std::move(tokens), syntax), syntax_(syntax) {}

  Status run() {
    for (const char* name : {"loop", "caller", "varargs", "kwargs"}) intern(name);
    TANDEM_ASSIGN_OR_RETURN(syntax_.body, body({}));
    return ok_status();
  }

 private:
  using Kind = Statement::Kind;
  using Words = std::vector<std::string_view>;

  // Statements up to a block tag whose word is in `ends`; that word is the current token then.
  Result<Body> body(const Words& ends) {
    if (++depth_ > kMaxSyntaxDepth) return too_deep();
    Body statements;
    while (true) {
      const Token& token = current();
      if (token.kind == TokenKind::kEnd) {
        if (ends.empty()) break;
        return fail("unexpected end of the template, expected '" + std::string(ends.back()) + "'");
      }
      if (token.kind == TokenKind::kData) {
        statements.push_back(make(Kind::kData));
        statements.back().text = make_text(token.text, true);
        next();
      } else if (token.kind == TokenKind::kVariableBegin) {
        next();
        statements.push_back(make(Kind::kOutput));
        TANDEM_ASSIGN_OR_RETURN(statements.back().expression, tuple());
        TANDEM_RETURN_IF_ERROR(expect(TokenKind::kVariableEnd, "'}}'"));
      } else {
        next();  // "{%"
        const std::string& word = current().text;
        if (current().kind != TokenKind::kName) return fail("expected the name of a tag");
        if (std::find(ends.begin(), ends.end(), word) != ends.end()) break;
        TANDEM_RETURN_IF_ERROR(statement(statements));
      }
    }
    --depth_;
    return statements;
  }

  Statement make(Kind kind) const {
    Statement statement;
    statement.kind = kind;
    statement.line = current().line;
    statement.offset = current().offset;
    return statement;
  }

  Status end_tag() { return expect(TokenKind::kBlockEnd, "'%}'"); }

  Result<Body> body_until(std::string_view end) {
    TANDEM_RETURN_IF_ERROR(end_tag());
    TANDEM_ASSIGN_OR_RETURN(Body statements, body({end}));
    next();
    TANDEM_RETURN_IF_ERROR(end_tag());
    return statements;
  }

  Status statement(Body& out) {
    const std::string word = current().text;
    if (word == "if") return if_statement(out);
    if (word == "for") return for_statement(out);
    if (word == "set") return set_statement(out);
    if (word == "macro") return macro_statement(out);
    if (word == "call") return call_statement(out);
    if (word == "filter") return filter_statement(out);
    if (word == "with") return with_statement(out);
    if (word == "generation") {
      out.push_back(make(Kind::kScope));
      next();
      TANDEM_ASSIGN_OR_RETURN(out.back().body, body_until("endgeneration"));
      return ok_status();
    }
    if (word == "break" || word == "continue") {
      if (loops_ == 0) return fail("'" + word + "' outside of a loop");
      out.push_back(make(word == "break" ? Kind::kBreak : Kind::kContinue));
      next();
      return end_tag();
    }
    static constexpr std::string_view kKnown[] = {"include", "import",     "from", "extends",
                                                  "block",   "autoescape", "do",   "trans"};
    if (std::find(std::begin(kKnown), std::end(kKnown), word) != std::end(kKnown)) {
      return template_error(Code::kUnsupported, current().line, current().offset,
                            "'{% " + word + " %}' is not supported");
    }
    return fail("unknown tag '" + word + "'");
  }

  Status if_statement(Body& out) {
    Statement node = make(Kind::kIf);
    while (true) {
      const bool is_else = current().text == "else";
      next();
      Statement::Branch branch;
      if (!is_else) {
        TANDEM_ASSIGN_OR_RETURN(branch.condition, tuple(false));
      }
      TANDEM_RETURN_IF_ERROR(end_tag());
      const Words ends = is_else ? Words{"endif"} : Words{"elif", "else", "endif"};
      TANDEM_ASSIGN_OR_RETURN(branch.body, body(ends));
      node.branches.push_back(std::move(branch));
      if (current().text == "endif") break;
    }
    next();
    out.push_back(std::move(node));
    return end_tag();
  }

  Status for_statement(Body& out) {
    Statement node = make(Kind::kFor);
    next();
    TANDEM_ASSIGN_OR_RETURN(node.target, target(false));
    if (!skip_name("in")) return fail("expected 'in' after the variable of 'for'");
    TANDEM_ASSIGN_OR_RETURN(node.expression, tuple(false));
    if (skip_name("if")) {
      TANDEM_ASSIGN_OR_RETURN(node.condition, expression());
    }
    if (is_name("recursive")) {
      return template_error(Code::kUnsupported, current().line, current().offset,
                            "recursive loops are not supported");
    }
    TANDEM_RETURN_IF_ERROR(end_tag());
    ++loops_;
    auto inside = body({"else", "endfor"});
    --loops_;
    if (!inside.ok()) return inside.status();
    node.body = std::move(*inside);
    if (current().text == "else") {
      next();
      TANDEM_RETURN_IF_ERROR(end_tag());
      TANDEM_ASSIGN_OR_RETURN(node.otherwise, body({"endfor"}));
    }
    next();
    out.push_back(std::move(node));
    return end_tag();
  }

  // "a", "a, b", "(a, b)" or, where allowed, "namespace.attribute".
  Result<Target> target(bool attribute_allowed) {
    Target result;
    const bool bracketed = skip_operator("(");
    do {
      if (!result.names.empty() && current().kind != TokenKind::kName) break;  // "a,"
      if (current().kind != TokenKind::kName || is_reserved(current().text)) {
        return fail("expected the name of a variable");
      }
      result.names.push_back(intern(current().text));
      next();
      if (attribute_allowed && result.names.size() == 1 && skip_operator(".")) {
        if (current().kind != TokenKind::kName) return fail("expected a name after '.'");
        result.attribute = current().text;
        next();
        return result;
      }
      if (!is_operator(",")) break;
      result.unpack = true;
    } while (skip_operator(",") && !is_name("in"));
    if (bracketed && !skip_operator(")")) return fail("expected ')'");
    return result;
  }

  Status set_statement(Body& out) {
    Statement node = make(Kind::kSet);
    next();
    TANDEM_ASSIGN_OR_RETURN(node.target, target(true));
    if (skip_operator("=")) {
      TANDEM_ASSIGN_OR_RETURN(node.expression, tuple());
      out.push_back(std::move(node));
      return end_tag();
    }
    node.kind = Kind::kSetBlock;
    TANDEM_ASSIGN_OR_RETURN(node.expression, filter_chain(nullptr));
    TANDEM_ASSIGN_OR_RETURN(node.body, body_until("endset"));
    out.push_back(std::move(node));
    return ok_status();
  }

  // "(a, b=1)"
  Status signature(Macro& macro) {
    if (!skip_operator("(")) return fail("expected '(' after the name of a macro");
    while (!skip_operator(")")) {
      if (!macro.parameters.empty() && !skip_operator(",")) return fail("expected ',' or ')'");
      if (skip_operator(")")) break;
      if (current().kind != TokenKind::kName) return fail("expected the name of a parameter");
      macro.parameters.push_back(intern(current().text));
      macro.parameter_names.push_back(current().text);
      next();
      if (skip_operator("=")) {
        TANDEM_ASSIGN_OR_RETURN(ExpressionPtr value, expression());
        macro.defaults.push_back(std::move(value));
      } else if (!macro.defaults.empty()) {
        return fail("a parameter without default follows one with");
      }
    }
    return ok_status();
  }

  // Parses the body and notes which of the implicit variables it mentions.
  Status macro_body(Macro& macro, std::string_view end) {
    const size_t begin = position();
    const size_t loops_outside = std::exchange(loops_, 0);
    TANDEM_ASSIGN_OR_RETURN(macro.body, body_until(end));
    loops_ = loops_outside;
    macro.takes_varargs = mentions(begin, "varargs");
    macro.takes_kwargs = mentions(begin, "kwargs");
    macro.takes_caller = mentions(begin, "caller");
    return ok_status();
  }

  Status macro_statement(Body& out) {
    Statement node = make(Kind::kMacro);
    next();
    if (current().kind != TokenKind::kName) return fail("expected the name of the macro");
    node.macro = std::make_unique<Macro>();
    node.macro->name = current().text;
    node.macro->line = node.line;
    node.macro->offset = node.offset;
    node.name = intern(current().text);
    next();
    TANDEM_RETURN_IF_ERROR(signature(*node.macro));
    TANDEM_RETURN_IF_ERROR(macro_body(*node.macro, "endmacro"));
    out.push_back(std::move(node));
    return ok_status();
  }

  Status call_statement(Body& out) {
    Statement node = make(Kind::kCallBlock);
    next();
    node.macro = std::make_unique<Macro>();
    node.macro->name = "caller";
    node.macro->line = node.line;
    node.macro->offset = node.offset;
    if (is_operator("(")) TANDEM_RETURN_IF_ERROR(signature(*node.macro));
    TANDEM_ASSIGN_OR_RETURN(node.expression, expression());
    if (node.expression->kind != Expression::Kind::kCall) return fail("expected a call");
    TANDEM_RETURN_IF_ERROR(macro_body(*node.macro, "endcall"));
    out.push_back(std::move(node));
    return ok_status();
  }

  Status filter_statement(Body& out) {
    Statement node = make(Kind::kFilterBlock);
    next();
    TANDEM_ASSIGN_OR_RETURN(node.expression, one_filter(nullptr));
    TANDEM_ASSIGN_OR_RETURN(node.expression, filter_chain(std::move(node.expression)));
    TANDEM_ASSIGN_OR_RETURN(node.body, body_until("endfilter"));
    out.push_back(std::move(node));
    return ok_status();
  }

  Status with_statement(Body& out) {
    Statement node = make(Kind::kWith);
    next();
    while (current().kind != TokenKind::kBlockEnd) {
      if (!node.bindings.empty() && !skip_operator(",")) return fail("expected ',' or '%}'");
      TANDEM_ASSIGN_OR_RETURN(Target name, target(false));
      if (!skip_operator("=")) return fail("expected '='");
      TANDEM_ASSIGN_OR_RETURN(ExpressionPtr value, expression());
      node.bindings.emplace_back(std::move(name), std::move(value));
    }
    TANDEM_ASSIGN_OR_RETURN(node.body, body_until("endwith"));
    out.push_back(std::move(node));
    return ok_status();
  }

  Syntax& syntax_;
  size_t loops_ = 0;
};

}  // namespace

Result<Syntax> parse_syntax(std::string_view source) {
  TANDEM_ASSIGN_OR_RETURN(std::vector<Token> tokens, tokenize(source));
  Syntax syntax;
  TANDEM_RETURN_IF_ERROR(Parser(std::move(tokens), syntax).run());
  return syntax;
}

}  // namespace tandem::jinja
