"""Writes a checkpoint as a GGUF file, and reads such a file back into the model. Example:

    python export.py --run /tmp/tiny-verse --output ../models/tiny-verse.gguf

Matrices become Q8_0 (blocks of 32 weights along a row); norms and routers stay float32.
"""

import argparse
from pathlib import Path

import gguf
import numpy as np
import torch

from model import Config, Model
from tokenizer import CHAT_TEMPLATE, CONTROL, Vocabulary

NAME, ARCHITECTURE, LICENCE = "tiny-verse", "qwen3moe", "apache-2.0"
QUANTISED = ("token_embd", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps")


def tensors(model):
    """(GGUF name, array, whether it is quantised), in file order."""
    yield "token_embd.weight", model.token_embd, True
    for n, layer in enumerate(model.layers):
        for name, value in layer.named_parameters():
            yield f"blk.{n}.{name}.weight", value, name in QUANTISED
    yield "output_norm.weight", model.output_norm, False
    # The same matrix as token_embd: some readers of this architecture ask for it by name.
    yield "output.weight", model.token_embd, True


def write(path, model, vocabulary):
    c, w = model.c, gguf.GGUFWriter(path, ARCHITECTURE)
    w.add_type("model")
    w.add_name(NAME)
    w.add_description("A toy mixture-of-experts model that answers in verse; trained on Shakespeare's plays only")
    w.add_license(LICENCE)
    w.add_languages(["en"])
    w.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    w.add_quantization_version(gguf.GGML_QUANT_VERSION)
    w.add_vocab_size(c.vocabulary)
    w.add_context_length(c.context)
    w.add_embedding_length(c.width)
    w.add_block_count(c.layers)
    w.add_feed_forward_length(c.expert_width * c.experts_used)
    w.add_head_count(c.heads)
    w.add_head_count_kv(c.kv_heads)
    w.add_key_length(c.head_width)
    w.add_value_length(c.head_width)
    w.add_layer_norm_rms_eps(c.epsilon)
    w.add_rope_freq_base(c.rope_base)
    w.add_rope_dimension_count(c.head_width)
    w.add_expert_count(c.experts)
    w.add_expert_used_count(c.experts_used)
    w.add_expert_feed_forward_length(c.expert_width)

    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("qwen2")
    w.add_token_list(vocabulary.tokens)
    w.add_token_types([gguf.TokenType.CONTROL if t in CONTROL else gguf.TokenType.NORMAL for t in vocabulary.tokens])
    w.add_token_merges([" ".join(pair) for pair in vocabulary.merges])
    w.add_eos_token_id(vocabulary.turn_end)
    w.add_pad_token_id(vocabulary.end_of_text)
    w.add_add_bos_token(False)
    w.add_chat_template(CHAT_TEMPLATE)

    for name, value, quantised in tensors(model):
        array = value.detach().float().numpy()
        if quantised:
            kind = gguf.GGMLQuantizationType.Q8_0
            w.add_tensor(name, gguf.quants.quantize(array, kind), raw_dtype=kind)
        else:
            w.add_tensor(name, np.ascontiguousarray(array))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def read(path):
    """-> (model with the dequantised weights in float32, vocabulary, metadata reader)."""
    reader = gguf.GGUFReader(path)
    value = lambda key: reader.fields[key].contents()
    own = lambda key: value(f"{ARCHITECTURE}.{key}")
    tokens = value("tokenizer.ggml.tokens")
    vocabulary = Vocabulary(tokens, [merge.split(" ") for merge in value("tokenizer.ggml.merges")])
    model = Model(
        Config(
            vocabulary=len(tokens),
            width=own("embedding_length"),
            layers=own("block_count"),
            heads=own("attention.head_count"),
            kv_heads=own("attention.head_count_kv"),
            head_width=own("attention.key_length"),
            experts=own("expert_count"),
            experts_used=own("expert_used_count"),
            expert_width=own("expert_feed_forward_length"),
            rope_base=own("rope.freq_base"),
            epsilon=own("attention.layer_norm_rms_epsilon"),
            context=own("context_length"),
        )
    )
    stored = {t.name: torch.tensor(gguf.quants.dequantize(t.data, t.tensor_type)) for t in reader.tensors}
    assert torch.equal(stored["output.weight"], stored["token_embd.weight"])  # this script's model ties the two
    with torch.no_grad():
        for name, parameter, _ in tensors(model):
            parameter.copy_(stored[name])
    return model.eval(), vocabulary, reader


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--run", type=Path, required=True)
    p.add_argument("--output", type=Path, required=True)
    a = p.parse_args()
    state = torch.load(a.run / "checkpoint.pt")
    model = Model(Config(**state["config"]))
    model.load_state_dict(state["model"])
    write(a.output, model, Vocabulary.load(a.run / "vocabulary.json"))
    print(f"{a.output}: {a.output.stat().st_size:,} bytes after {state['step']} steps")


if __name__ == "__main__":
    main()
