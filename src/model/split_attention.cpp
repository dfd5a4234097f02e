#include "model/split_attention.h"

namespace tandem {
namespace {

class Splitter {
 public:
  explicit Splitter(const Program& program) { result_.program = program; }

  SplitAttention split(const Program& program, const std::vector<Processor>& processors) {
    result_.program.ops.clear();
    for (uint32_t i = 0; i < program.ops.size(); ++i) {
      if (i == program.first_output_op) {
        result_.program.first_output_op = static_cast<uint32_t>(result_.program.ops.size());
      }
      const Op& op = program.ops[i];
      const bool there = processors[i] == Processor::kDevice;
      if (there && op.kind == OpKind::kStoreKv) {
        add(op, Processor::kBoth, true);
      } else if (there && op.kind == OpKind::kAttend) {
        add_parts(op);
      } else {
        add(op, processors[i], false);
      }
    }
    return std::move(result_);
  }

 private:
  // The CPU's part stands first, so that the queries come down before the device begins its own.
  void add_parts(const Op& whole) {
    const ValueId queries = whole.in[0];
    Op here = whole;
    here.kind = OpKind::kAttendPages;
    here.out = add_value(ValueType::kPartials);
    Op there = here;
    there.out = add_value(ValueType::kF32);  // one slot
    Op merge = whole;
    merge.kind = OpKind::kMergePages;
    merge.in[0] = here.out;
    merge.in[1] = there.out;
    merge.in[2] = queries;
    add(here, Processor::kCpu, true);
    add(there, Processor::kDevice, true);
    add(merge, Processor::kCpu, true);
  }

  ValueId add_value(ValueType type) {
    const ModelShape& s = result_.program.shape;
    result_.program.values.push_back(
        {type, RowSpace::kTokens, Partials::slot_floats(s.n_heads, s.head_width)});
    return static_cast<ValueId>(result_.program.values.size() - 1);
  }

  void add(const Op& op, Processor processor, bool split) {
    result_.program.ops.push_back(op);
    result_.processors.push_back(processor);
    result_.split.push_back(split);
  }

  SplitAttention result_;
};

}  // namespace

SplitAttention split_attention(const Program& program, const std::vector<Processor>& processors) {
  return Splitter(program).split(program, processors);
}

}  // namespace tandem
