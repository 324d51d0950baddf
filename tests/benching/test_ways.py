"""Ways of a training step: the same loss in all of them, on the same weights."""

from dataclasses import replace

import pytest
import torch
from omegaconf import DictConfig

from omnihuman.benching import gpu
from omnihuman.benching.compare import build_table, measure_parts, measure_ways
from omnihuman.benching.ways import TrainingStep, Way, compute_packed_loss, compute_padded_loss
from omnihuman.build import compose_config


@pytest.fixture(scope="module")
def config() -> DictConfig:
    options = ["frames=2", "recipe.batch_size=2", "data.max_tokens=300", "mode=gpu"]
    return compose_config(["+experiment=humanomni_stage3", *options], "bench")


@pytest.fixture(scope="module")
def step(config: DictConfig) -> TrainingStep:
    step = TrainingStep(config, torch.device("cpu"))
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:
        patch.setattr(gpu, "CLIP_SECONDS", 1.0)
        patch.setattr(gpu, "SOUND_SECONDS", (0.5, 1.0))
        step.load(gpu.draw_batches(step.model, config))
    return step


def test_clips_and_sounds_fill_micro_batches_of_like_length(step: TrainingStep) -> None:
    clips, sounds = step.batches
    assert len(clips.bounds) == 3 and len(set(clips.lengths)) == 1 and len(set(sounds.lengths)) > 1
    assert clips.signals["video"].mask.all() and not sounds.signals["video"].mask.any()
    assert abs(clips.input_ids.shape[1] - sounds.input_ids.shape[1]) <= max(sounds.lengths)


def test_padded_samples_have_the_loss_of_packed_ones(step: TrainingStep) -> None:
    for batch in step.batches:
        step.use(Way())
        packed_loss = compute_packed_loss(step.model, batch)
        step.use(Way(packing=False))
        torch.testing.assert_close(compute_padded_loss(step.model, batch), packed_loss, rtol=1e-5, atol=1e-5)


def test_every_way_has_the_same_loss(step: TrainingStep) -> None:
    ways = gpu.list_ways(Way(), "eager")
    chosen = [name for name in ways if ways[name].precision == "32-true" and ways[name].compiler is None]
    assert len(chosen) == len(ways) - 2
    losses = []
    for group in step.optimizer.param_groups:
        group["lr"] = 0.0
    for name in chosen:
        step.use(ways[name])
        losses.append(float(step.run()))
    assert losses == pytest.approx([losses[0]] * len(losses), rel=1e-4)


def test_cached_features_cost_no_encoder(step: TrainingStep) -> None:
    step.use(Way())
    flops = step.count_flops()
    step.use(Way(cache=True))
    cached = step.count_flops()
    assert flops.keys() - cached.keys() == {"encoders.video", "encoders.audio"}
    assert cached == {name: flops[name] for name in cached}


def test_rows_have_ratios_to_their_references(step: TrainingStep) -> None:
    ways = {"plain": Way(), "padded": Way(packing=False)}
    step.load(step.batches[1:])
    results = measure_ways(step, ways, 1)
    table = build_table("two ways", step, results, "padded")
    assert [row[0] for row in table.rows] == ["plain", "padded"] and table.rows[1][2] == 1
    assert results["plain"].flops == results["padded"].flops > 0
    large = build_table("none fits", step, {"plain": replace(results["plain"], seconds=None)}, "plain")
    assert str(large.rows[0][0]).startswith("plain: out of memory") and set(large.rows[0][1:]) == {None}


def test_parts_run_alone(step: TrainingStep) -> None:
    step.use(Way())
    table = measure_parts("parts", step, step.batches[0], repeats=1)
    rows = {str(row[0]): dict(zip(table.columns, row, strict=True)) for row in table.rows}
    assert {"encoders.video", "projectors.body", "fusions.gate", "llm"} <= rows.keys()
    assert sum(float(row["share"]) for row in rows.values()) == pytest.approx(1)  # type: ignore[arg-type]
    assert rows["llm"]["MFU"] is None, "no peak of a CPU"


def test_each_option_is_switched_once() -> None:
    for precision, checkpointing in (("bf16", 1.0), ("32-true", 0.0)):
        base = Way(precision=precision, checkpointing=checkpointing)
        ways = gpu.list_ways(base, "inductor")
        del ways[gpu.OFFICIAL]
        for name, way in ways.items():
            differences = [key for key in vars(base) if getattr(way, key) != getattr(base, key)]
            assert len(differences) == (name != gpu.OURS), name
        assert len(set(ways.values())) == len(ways)


def test_layers_fit_into_memory() -> None:
    config = compose_config(["+experiment=humanomni_stage3", "size=0_5b", "random_weights=true", "mode=gpu"], "bench")
    sizes = [gpu.fit_layers(config, 24, num_bytes) for num_bytes in (1e9, 10e9, 20e9, 40e9)]
    assert sizes[0] == 1 < sizes[1] < sizes[2] <= sizes[3] == 24
    config.layers = 3
    assert gpu.select_layers(config, torch.device("cpu")) == "3 of 24 layers"
    assert config.model.llm.architecture.num_hidden_layers == 3
