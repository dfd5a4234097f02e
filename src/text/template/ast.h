// A parsed template.  Immutable once parsed; nodes are owned by their parents.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "text/template/builtins.h"
#include "text/template/value.h"

namespace tandem::jinja {

struct Expression;
struct Statement;
using ExpressionPtr = std::unique_ptr<Expression>;
using Body = std::vector<Statement>;

enum class Operator : uint8_t {
  kAdd,
  kSubtract,
  kMultiply,
  kDivide,
  kFloorDivide,
  kModulo,
  kPower,
  kEqual,
  kNotEqual,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual,
  kIn,
  kNotIn,
};

struct Expression {
  enum class Kind : uint8_t {
    kConstant,   // constant
    kName,       // name
    kList,       // children
    kTuple,      // children
    kDict,       // children: key, value, key, value, ...
    kAttribute,  // children[0] . text
    kItem,       // children[0] [ children[1] ]
    kSlice,      // children[0] [ children[1] : children[2] : children[3] ]; null where left out
    kCall,       // children[0] ( children[1...], keywords )
    kFilter,  // children[0] | text ( children[1...], keywords ); children[0] null in {% filter %}
    kTest,    // children[0] is text ( children[1...], keywords )
    kNegate,
    kPlus,
    kNot,
    kBinary,   // children[0] operators[0] children[1]
    kCompare,  // children[0] operators[0] children[1] operators[1] children[2] ...
    kAnd,      // children[0] and children[1]
    kOr,
    kConcat,       // children joined as text
    kConditional,  // children[0] if children[1] else children[2], which may be null
  };
  Kind kind;
  uint32_t line = 0;
  uint32_t offset = 0;
  uint32_t depth = 1;  // 1 + that of the deepest child
  uint32_t name = 0;   // index in Syntax::names
  std::string text;
  Value constant;
  std::vector<Operator> operators;
  std::vector<ExpressionPtr> children;
  std::vector<std::pair<std::string, ExpressionPtr>> keywords;
  const Filter* filter = nullptr;  // null: there is none of that name, an error if it is reached
  const Test* test = nullptr;
};

// What is assigned to: names, or one attribute of a namespace.
struct Target {
  std::vector<uint32_t> names;
  bool unpack = false;    // "a, b" or "(a,)": the value is taken apart
  std::string attribute;  // names[0].attribute when not empty
};

struct Macro {
  std::string name;
  uint32_t line = 0;
  uint32_t offset = 0;
  std::vector<uint32_t> parameters;
  std::vector<std::string> parameter_names;
  std::vector<ExpressionPtr> defaults;                                     // of the last parameters
  bool takes_varargs = false, takes_kwargs = false, takes_caller = false;  // mentioned in the body
  Body body;
};

struct Statement {
  enum class Kind : uint8_t {
    kData,         // text
    kOutput,       // expression
    kIf,           // branches: condition and body; a null condition is else
    kFor,          // target in expression, condition (may be null); body, otherwise
    kSet,          // target = expression
    kSetBlock,     // target = body, through expression (a filter chain or null)
    kMacro,        // macro, bound to name
    kCallBlock,    // expression is the call, macro the caller
    kFilterBlock,  // expression is the filter chain
    kWith,         // targets = values, then body
    kScope,        // body alone ({% generation %})
    kBreak,
    kContinue,
  };
  struct Branch {
    ExpressionPtr condition;
    Body body;
  };
  Kind kind;
  uint32_t line = 0;
  uint32_t offset = 0;
  uint32_t name = 0;
  Text text;
  ExpressionPtr expression, condition;
  Target target;
  std::vector<Branch> branches;
  std::vector<std::pair<Target, ExpressionPtr>> bindings;
  Body body, otherwise;
  std::unique_ptr<Macro> macro;
};

// Variables that the language itself defines stand first in Syntax::names.
inline constexpr uint32_t kLoopName = 0, kCallerName = 1, kVarargsName = 2, kKwargsName = 3;

struct Syntax {
  std::vector<std::string> names;  // every variable's name once
  Body body;
};

}  // namespace tandem::jinja
