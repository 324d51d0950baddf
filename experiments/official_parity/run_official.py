"""Run HumanOmni's released code on a folder and a clip, and save its tensors; needs the environment of that code.

python run_official.py CLONE create ROOT --form 7b --tokenizer A --bert-tokenizer B   write a tiny random checkpoint
python run_official.py CLONE infer FOLDER OUT --bert ROOT/bert --clip A.mp4           save the tensors of mm_infer

CLONE is a clone of HumanOmni or of R1-Omni. Its code is unchanged, but runs on the CPU and in float32.
"""

import argparse
import json
import logging
import re
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import torch
from safetensors.torch import save_file

SIZES = {"7b": ("all_in_one", 384, 14, 32), "0_5b": ("all_in_one_small", 224, 16, 8)}
"""Form -> projector type, image size, patch size, frames."""

TOWERS = ("model.vision_tower.", "model.audio_tower.", "model.projector.", "model.classifier.")
QUESTION = "What is the main emotion?\nhappy ,sad"
ANSWER = "sad, because of it.<|im_end|>\n"
LAYERS = {"intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}


def import_official(clone, bert):
    """Import the official packages with BERT from a folder; calls for a GPU or half precision have no effect."""
    sys.path.insert(0, str(clone))
    import humanomni
    import humanomni.model
    from humanomni.model import humanomni_arch

    def stay(self, *args, **kwargs):
        return self

    move = torch.Tensor.to
    torch.Tensor.cuda = torch.Tensor.half = stay
    torch.Tensor.to = lambda self, *args, **kwargs: self if args[:1] == ("cuda",) else move(self, *args, **kwargs)
    torch.cuda.current_device = lambda: 0
    humanomni.model.torch = SimpleNamespace(**dict(vars(torch), float16=torch.float32))
    for name in ("BertModel", "BertTokenizer"):
        cls = getattr(humanomni_arch, name)
        setattr(humanomni_arch, name, SimpleNamespace(from_pretrained=lambda _, cls=cls: cls.from_pretrained(bert)))
    return humanomni


def randomize(model, seed):
    """Draw weights so that every part affects the output."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        values = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim == 1:
            parameter.data = values / 10 + name.endswith("weight")
        else:
            parameter.data = values / parameter[0].numel() ** 0.5


def write_tokenizers(source, bert, root):
    """Write tokenizers of Qwen2's and BERT's classes from ``tokenizer.json`` files; Qwen2's as HumanOmni saves it."""
    from transformers import BertTokenizer, Qwen2Tokenizer, Qwen2TokenizerFast

    model = json.loads((source / "tokenizer.json").read_text())["model"]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    (root / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False))
    (root / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    slow = Qwen2Tokenizer(
        str(root / "vocab.json"),
        str(root / "merges.txt"),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token=None,
        bos_token=None,
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        model_max_length=32768,
    )
    slow.chat_template = (source / "chat_template.jinja").read_text()
    slow.save_pretrained(root / "qwen")
    Qwen2TokenizerFast.from_pretrained(root / "qwen").save_pretrained(root / "qwen")
    vocabulary = json.loads((bert / "tokenizer.json").read_text())["model"]["vocab"]
    (root / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.get)))
    BertTokenizer(str(root / "vocab.txt")).save_pretrained(root / "bert")


def write_towers(root, side, patch):
    """Write towers as on the hub, and return BERT."""
    from transformers import (
        BertConfig,
        BertModel,
        SiglipConfig,
        SiglipImageProcessor,
        SiglipModel,
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
    )

    vision = {**LAYERS, "hidden_size": 16, "num_hidden_layers": 3, "image_size": side, "patch_size": patch}
    text = {**LAYERS, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    whisper_config = WhisperConfig(
        num_mel_bins=128,
        d_model=12,
        encoder_layers=2,
        encoder_attention_heads=2,
        encoder_ffn_dim=24,
        decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=16,
    )
    bert = BertModel(BertConfig(**LAYERS, hidden_size=20, vocab_size=1024))
    towers = {
        "siglip": SiglipModel(SiglipConfig(vision_config=vision, text_config=text)),
        "whisper": WhisperForConditionalGeneration(whisper_config),
        "bert": bert,
    }
    for seed, (name, tower) in enumerate(towers.items()):
        randomize(tower, seed)
        tower.save_pretrained(root / name)
    SiglipImageProcessor(size={"height": side, "width": side}).save_pretrained(root / "siglip")
    WhisperFeatureExtractor(feature_size=128).save_pretrained(root / "whisper")
    return bert


def create(options):
    """Write towers as on the hub, then the model with the official classes and ``save_pretrained``."""
    from transformers import AutoTokenizer

    root, (projector_type, side, patch, num_frames) = options.root, SIZES[options.form]
    bert = write_towers(root, side, patch)
    write_tokenizers(options.tokenizer, options.bert_tokenizer, root)
    import_official(options.clone, root / "bert")
    from humanomni.model import HumanOmniQwen2Config, HumanOmniQwen2ForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(root / "qwen")
    config = HumanOmniQwen2Config(
        vocab_size=1024,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=8192,
        rms_norm_eps=1e-6,
        rope_theta=1e6,
        tie_word_embeddings=options.form == "0_5b",
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        mm_vision_tower=str(root / "siglip"),
        mm_audio_tower=str(root / "whisper"),
        mm_projector_type=projector_type,
        mm_hidden_size=16,
        mm_vision_select_layer=-2,
        mm_vision_select_feature="patch",
        num_frames=num_frames,
        mm_use_x_start_end=True,
        mm_audio_projector_type="mlp2x_gelu",
        image_aspect_ratio="pad",
        use_mm_proj=True,
        tune_mm_mlp_adapter=False,
        torch_dtype=options.dtype,
    )
    model = HumanOmniQwen2ForCausalLM(config)
    randomize(model, 9)
    if options.towers:
        model.get_vision_tower().load_model()
        model.get_audio_tower().load_model()
    model.model.bert_model.load_state_dict(bert.state_dict())
    model.to(getattr(torch, options.dtype))
    model.save_pretrained(root / "HumanOmni", safe_serialization=not options.bin, max_shard_size="300KB")
    tokenizer.save_pretrained(root / "HumanOmni")


@contextmanager
def collect_warnings():
    """Collect transformers' messages on missing and unexpected keys."""
    messages, logger = [], logging.getLogger("transformers")
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)


def record_inputs(model):
    """Wrap ``model.generate``, and return a dictionary with the inputs and the output of its last call."""
    calls = {}
    generate = model.generate

    def generate_and_record(ids, *, images, attention_mask, prompts, audios, **kwargs):
        inputs = {"images": images, "attention_mask": attention_mask, "prompts": prompts, "audios": audios}
        calls.update(inputs, ids=ids)
        calls["generated"] = generate(ids, **inputs, **kwargs)
        return calls["generated"]

    model.generate = generate_and_record
    return calls


def compute_tensors(model, tokenizer, call, video, audio):
    """Return the inputs and outputs of a call of ``generate``, with the loss of the answer ``ANSWER``."""
    answer = torch.tensor([tokenizer(ANSWER, add_special_tokens=False).input_ids])
    ids = torch.cat((call["ids"], answer), dim=1)
    labels = ids.masked_fill(torch.arange(ids.shape[1]) < call["ids"].shape[1], -100)
    with torch.no_grad():
        _, mask, _, embeds, labels = model.prepare_inputs_labels_for_multimodal(
            ids, torch.ones_like(ids), None, labels, call["images"], prompts=call["prompts"], audios=call["audios"]
        )
        output = model(inputs_embeds=embeds, attention_mask=mask, labels=labels)
    tensors = {
        "ids": ids,
        "prompt_ids": call["ids"],
        "bert": call["prompts"]["input_ids"],
        "generated": call["generated"],
        "embeds": embeds,
        "logits": output.logits[:, -answer.shape[1] - 1 :],
        "loss": output.loss,
    }
    if video is not None:
        tensors["pixels"] = video
    if audio is not None:
        tensors["mel"] = audio
    return {name: tensor.contiguous().clone() for name, tensor in tensors.items()}


def infer(options):
    """Run the official loader, processors and ``mm_infer``, and save the tensors of every clip and modality."""
    from transformers import BertTokenizer

    humanomni = import_official(options.clone, options.bert)
    with collect_warnings() as messages:
        model, processor, tokenizer = humanomni.model_init(str(options.folder), device="cpu")
    model.eval()
    call = record_inputs(model)
    bert = BertTokenizer.from_pretrained(options.bert)
    answers = {}
    options.out.mkdir(parents=True)
    for clip in options.clip:
        for modal in options.modal:
            video = processor["video"](str(clip)) if "video" in modal else None
            audio = processor["audio"](str(clip))[0] if "audio" in modal else None
            text = humanomni.mm_infer(
                video,
                options.question,
                model=model,
                tokenizer=tokenizer,
                modal=modal,
                question=options.question,
                bert_tokeni=bert,
                audio=audio,
                max_new_tokens=options.tokens,
            )
            name = f"{clip.stem}.{modal}"
            tensors = compute_tensors(model, tokenizer, call, video, audio)
            save_file(tensors, options.out / f"{name}.safetensors")
            answers[name] = {"clip": str(clip.absolute()), "modal": modal, "text": text}
            print(name, repr(text)[:70], flush=True)
    report = {"warnings": messages, "answers": answers, "question": options.question}
    (options.out / "report.json").write_text(json.dumps(report, indent=2))
    for message in messages:
        keys = re.findall(r"'([\w.]+\.[\w.]+)'", message)
        unexpected = [key for key in keys if not key.startswith(TOWERS)]
        summary = f"{len(keys)} keys, not of towers: {unexpected}" if keys else ""
        print(message.partition(":")[0][:90], summary)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clone", type=Path)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("create")
    command.set_defaults(run=create)
    command.add_argument("root", type=Path)
    command.add_argument("--form", choices=SIZES, default="7b")
    command.add_argument("--tokenizer", type=Path, required=True, help="folder of tokenizer.json, chat_template.jinja")
    command.add_argument(
        "--bert-tokenizer", type=Path, required=True, help="folder of tokenizer.json; 1024 tokens each"
    )
    command.add_argument("--dtype", default="float32")
    command.add_argument("--towers", action="store_true", help="save them in the checkpoint too, as HumanOmni does")
    command.add_argument("--bin", action="store_true", help="pytorch_model.bin instead of safetensors")
    command = commands.add_parser("infer")
    command.set_defaults(run=infer)
    command.add_argument("folder", type=Path)
    command.add_argument("out", type=Path)
    command.add_argument("--bert", type=Path, required=True)
    command.add_argument("--clip", type=Path, nargs="+", required=True)
    command.add_argument("--modal", nargs="+", default=["video_audio", "video", "audio"])
    command.add_argument("--question", default=QUESTION)
    command.add_argument("--tokens", type=int, default=12)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
