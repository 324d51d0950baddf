"""What HumanOmni's released code makes of a folder and a clip, as files; runs where that code runs, not ours.

python theirs.py CLONE make ROOT --form 7b --tokenizer A --bert-tokenizer B    a tiny random checkpoint of theirs
python theirs.py CLONE ask FOLDER OUT --bert ROOT/bert --clip A.mp4            what mm_infer is given, makes and says

CLONE is a clone of HumanOmni or of R1-Omni. Nothing of it is changed, but that all runs on the CPU and in float32.
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
TOWERS = ("model.vision_tower.", "model.audio_tower.", "model.projector.", "model.classifier.")
QUESTION = "What is the main emotion?\nhappy ,sad"
ANSWER = "sad, because of it.<|im_end|>\n"


def imported(clone, bert):
    """Their packages, with BERT from a folder and everything that wants a GPU or half precision made to stay here."""
    sys.path.insert(0, str(clone))
    import humanomni
    import humanomni.model
    from humanomni.model import humanomni_arch

    def stay(self, *args, **kwargs):
        return self

    move = torch.Tensor.to
    torch.Tensor.cuda = torch.Tensor.half = stay
    torch.Tensor.to = lambda self, *a, **k: self if a[:1] == ("cuda",) else move(self, *a, **k)
    torch.cuda.current_device = lambda: 0
    half = dict(vars(torch), float16=torch.float32)
    humanomni.model.torch = SimpleNamespace(**half)
    for name in ("BertModel", "BertTokenizer"):
        cls = getattr(humanomni_arch, name)
        setattr(humanomni_arch, name, SimpleNamespace(from_pretrained=lambda _, cls=cls: cls.from_pretrained(bert)))
    return humanomni


def scatter(model, seed):
    """Random weights that let every part have a say."""
    generator = torch.Generator().manual_seed(seed)
    for name, x in model.named_parameters():
        values = torch.randn(x.shape, generator=generator)
        norm = x.ndim == 1 and name.endswith("weight")
        x.data = values / 10 + norm if x.ndim == 1 else values / x[0].numel() ** 0.5


def tokenizers(source, bert, root):
    """Qwen2's and BERT's classes with the words of ``tokenizer.json`` files; Qwen2's as their trainer saves it."""
    from transformers import BertTokenizer, Qwen2Tokenizer, Qwen2TokenizerFast

    words = json.loads((source / "tokenizer.json").read_text())["model"]
    merges = [each if isinstance(each, str) else " ".join(each) for each in words["merges"]]
    (root / "vocab.json").write_text(json.dumps(words["vocab"], ensure_ascii=False))
    (root / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    marks = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "unk_token": None, "bos_token": None,
             "additional_special_tokens": ["<|im_start|>", "<|im_end|>"]}  # fmt: skip
    slow = Qwen2Tokenizer(str(root / "vocab.json"), str(root / "merges.txt"), **marks, model_max_length=32768)
    slow.chat_template = (source / "chat_template.jinja").read_text()
    slow.save_pretrained(root / "qwen")
    Qwen2TokenizerFast.from_pretrained(root / "qwen").save_pretrained(root / "qwen")
    known = json.loads((bert / "tokenizer.json").read_text())["model"]["vocab"]
    (root / "vocab.txt").write_text("\n".join(sorted(known, key=known.get)))
    BertTokenizer(str(root / "vocab.txt")).save_pretrained(root / "bert")


def make(options):
    """Towers as on the hub, then the model by their own classes and ``save_pretrained``."""
    from transformers import (
        AutoTokenizer,
        BertConfig,
        BertModel,
        SiglipConfig,
        SiglipImageProcessor,
        SiglipModel,
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
    )  # fmt: skip

    root, (kind, side, patch, frames) = options.root, SIZES[options.form]
    vision = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2}
    text = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    sight = SiglipModel(SiglipConfig(vision_config={**vision, "image_size": side, "patch_size": patch},
                                     text_config=text))  # fmt: skip
    hearing = WhisperForConditionalGeneration(WhisperConfig(
        num_mel_bins=128, d_model=12, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=24,
        decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=16))  # fmt: skip
    words = BertModel(BertConfig(hidden_size=20, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
                                 vocab_size=1024))  # fmt: skip
    for seed, (name, tower) in enumerate({"siglip": sight, "whisper": hearing, "bert": words}.items()):
        scatter(tower, seed)
        tower.save_pretrained(root / name)
    SiglipImageProcessor(size={"height": side, "width": side}).save_pretrained(root / "siglip")
    WhisperFeatureExtractor(feature_size=128).save_pretrained(root / "whisper")
    tokenizers(options.tokenizer, options.bert_tokenizer, root)
    imported(options.clone, root / "bert")
    from humanomni.model import HumanOmniQwen2Config, HumanOmniQwen2ForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(root / "qwen")
    config = HumanOmniQwen2Config(
        vocab_size=1024, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=8192, rms_norm_eps=1e-6, rope_theta=1e6,
        tie_word_embeddings=options.form == "0_5b", eos_token_id=tokenizer.eos_token_id, bos_token_id=None,
        mm_vision_tower=str(root / "siglip"), mm_audio_tower=str(root / "whisper"), mm_projector_type=kind,
        mm_hidden_size=16, mm_vision_select_layer=-2, mm_vision_select_feature="patch", num_frames=frames,
        mm_use_x_start_end=True, mm_audio_projector_type="mlp2x_gelu", image_aspect_ratio="pad",
        use_mm_proj=True, tune_mm_mlp_adapter=False, torch_dtype=options.dtype)  # fmt: skip
    model = HumanOmniQwen2ForCausalLM(config)
    scatter(model, 9)
    if options.towers:
        model.get_vision_tower().load_model()
        model.get_audio_tower().load_model()
    model.model.bert_model.load_state_dict(words.state_dict())
    model.to(getattr(torch, options.dtype)).save_pretrained(
        root / "HumanOmni", safe_serialization=not options.bin, max_shard_size="300KB")  # fmt: skip
    tokenizer.save_pretrained(root / "HumanOmni")


@contextmanager
def warnings():
    """What transformers says of missing and unexpected keys, by the line."""
    said, logger = [], logging.getLogger("transformers")
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logger.addHandler(handler)
    yield said
    logger.removeHandler(handler)


def ask(options):
    """Their loader, their processors and their ``mm_infer``, for every clip and modal; one file of tensors for each."""
    from transformers import BertTokenizer

    humanomni = imported(options.clone, options.bert)
    with warnings() as said:
        model, processor, tokenizer = humanomni.model_init(str(options.folder), device="cpu")
    model.eval()
    seen, report = {}, {"warnings": said, "answers": {}}

    def asked(ids, *, images, attention_mask, prompts, audios, **how):
        seen.update(ids=ids, images=images, mask=attention_mask, prompts=prompts, audios=audios)
        seen["said"] = generate(
            ids, images=images, attention_mask=attention_mask, prompts=prompts, audios=audios, **how
        )
        return seen["said"]

    generate, model.generate = model.generate, asked
    bert = BertTokenizer.from_pretrained(options.bert)
    options.out.mkdir(parents=True)
    for clip in options.clip:
        for modal in options.modal:
            video = processor["video"](str(clip)) if "video" in modal else None
            audio = processor["audio"](str(clip))[0] if "audio" in modal else None
            text = humanomni.mm_infer(video, options.question, model=model, tokenizer=tokenizer, modal=modal,
                                      question=options.question, bert_tokeni=bert, audio=audio,
                                      max_new_tokens=options.tokens)  # fmt: skip
            answer = torch.tensor([tokenizer(ANSWER, add_special_tokens=False).input_ids])
            ids = torch.cat((seen["ids"], answer), dim=1)
            labels = ids.masked_fill(torch.arange(ids.shape[1]) < seen["ids"].shape[1], -100)
            with torch.no_grad():
                _, mask, _, embeds, spread = model.prepare_inputs_labels_for_multimodal(
                    ids, torch.ones_like(ids), None, labels, seen["images"], prompts=seen["prompts"],
                    audios=seen["audios"])  # fmt: skip
                made = model(inputs_embeds=embeds, attention_mask=mask, labels=spread)
            held = {"ids": ids, "prompt_ids": seen["ids"], "bert": seen["prompts"]["input_ids"], "said": seen["said"],
                    "embeds": embeds, "logits": made.logits[:, -answer.shape[1] - 1 :], "loss": made.loss}  # fmt: skip
            held |= {"pixels": video} if video is not None else {}
            held |= {"mel": audio} if audio is not None else {}
            name = f"{clip.stem}.{modal}"
            save_file({key: x.contiguous().clone() for key, x in held.items()}, options.out / f"{name}.safetensors")
            report["answers"][name] = {"clip": str(clip.absolute()), "modal": modal, "text": text}
            print(name, repr(text)[:70], flush=True)
    (options.out / "report.json").write_text(json.dumps(report | {"question": options.question}, indent=2))
    for said in report["warnings"]:
        keys = re.findall(r"'([\w.]+\.[\w.]+)'", said)
        others = [key for key in keys if not key.startswith(TOWERS)]
        print(said.partition(":")[0][:90], f"{len(keys)} keys, not of towers: {others}" if keys else "")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clone", type=Path)
    verbs = parser.add_subparsers(required=True)
    making = verbs.add_parser("make")
    making.set_defaults(run=make)
    making.add_argument("root", type=Path)
    making.add_argument("--form", choices=SIZES, default="7b")
    making.add_argument(
        "--tokenizer", type=Path, required=True, help="folder of a tokenizer.json and chat_template.jinja"
    )
    making.add_argument(
        "--bert-tokenizer", type=Path, required=True, help="folder of a tokenizer.json; 1024 words in each"
    )
    making.add_argument("--dtype", default="float32")
    making.add_argument("--towers", action="store_true", help="save them in the checkpoint too, as their trainer does")
    making.add_argument("--bin", action="store_true", help="pytorch_model.bin in place of safetensors")
    asking = verbs.add_parser("ask")
    asking.set_defaults(run=ask)
    asking.add_argument("folder", type=Path)
    asking.add_argument("out", type=Path)
    asking.add_argument("--bert", type=Path, required=True)
    asking.add_argument("--clip", type=Path, nargs="+", required=True)
    asking.add_argument("--modal", nargs="+", default=["video_audio", "video", "audio"])
    asking.add_argument("--question", default=QUESTION)
    asking.add_argument("--tokens", type=int, default=12)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
