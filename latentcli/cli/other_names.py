"""Knows what options and commands of other tools are called here.

People type what they are used to from diffusers, img2dataset, clip-retrieval, sd-scripts,
musubi-tuner, SimpleTuner and the scripts of papers. The name that is most similar by its letters
often means something else: --resolution is not --revision.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

OPTIONS: dict[tuple[str, ...], str] = {
    ("--size", "--area"): """
        resolution res image-size img-size target-size crop-size input-size max-resolution width
        height shape
    """,
    ("--area", "--buckets"): """
        enable-bucket enable-buckets bucket aspect-ratio-bucketing aspect-bucketing use-buckets
        resolution-type
    """,
    ("--bucket-step",): "bucket-reso-steps bucket-steps aspect-bucket-alignment divisible-by",
    ("--bucket-min",): "min-bucket-reso bucket-reso-min",
    ("--bucket-max",): "max-bucket-reso bucket-reso-max",
    ("--no-upscale",): "bucket-no-upscale resize-only-if-bigger",
    ("--resize",): "resize-mode crop center-crop centre-crop crop-mode transform",
    ("--filter",): """
        interpolation resample resampling image-interpolation-mode resize-filter
        resize-interpolation upscale-interpolation downscale-interpolation
    """,
    ("--flip",): "flip-aug random-flip hflip horizontal-flip enable-flip mirror",
    ("--model",): """
        vae vae-path vae-model vae-name ae autoencoder tokenizer model-name model-id model-path
        model-url model-type repo repo-id preset arch pretrained checkpoint-path
        model-name-or-path pretrained-model pretrained-model-name-or-path pretrained-vae-path
        pretrained-vae-model-name-or-path vae-model-name-or-path vae-pretrained
    """,
    ("--weights",): "checkpoint ckpt ckpt-path weight weights-path weights-file vae-checkpoint",
    ("--decoder",): "decoders",
    ("--baseline",): "reference compare-to against",
    ("--output", "--save", "--report"): """
        out dest dst destination target out-dir outdir output-dir output-path output-folder
        output-directory output-file out-path out-folder save-dir save-path save-to cache-dir
        cache-dir-vae cache-path cache-directory latent-dir latents-dir latents-path
        features-path feature-path store cached-path results-dir
    """,
    ("--batch-size",): """
        bs batch batchsize train-batch-size vae-batch-size global-batch-size
        per-device-batch-size vae-encode-batch-size vae-cache-batch-size encode-batch-size
        image-processing-batch-size eval-batch-size batch-size-per-gpu
    """,
    ("--workers",): """
        num-workers n-workers nworkers max-workers num-proc nproc num-processes processes
        processes-count process-count threads num-threads thread-count jobs
        dataloader-num-workers max-data-loader-n-workers num-prepro-workers loader-workers
    """,
    ("--dtype",): """
        precision mixed-precision fp16 half float16 weight-dtype torch-dtype vae-dtype
        model-dtype compute-dtype data-type amp full-fp16 full-bf16 no-half no-half-vae
        vae-precision
    """,
    ("--dtype bf16",): "bf16 bfloat16",
    ("--dtype fp32",): "fp32 float32 full-precision",
    ("--store-dtype",): """
        save-dtype latent-dtype latents-dtype save-precision cache-dtype output-dtype quantize
        quantise quantization
    """,
    ("--device",): "gpu gpu-id gpu-ids device-id cuda-device accelerator",
    ("--device cuda",): "cuda use-cuda use-gpu",
    ("--device cpu",): "cpu use-cpu no-cuda no-gpu cpu-only",
    ("--devices",): """
        gpus num-gpus n-gpus ngpus gpu-count nproc-per-node world-size num-devices multi-gpu
    """,
    ("--engine",): "distributor distributed backend launcher",
    ("--max-memory",): """
        vae-tiling enable-tiling vae-enable-tiling tiling tiled tile-size vae-slicing
        enable-slicing vae-enable-slicing enable-vae-tiling enable-vae-slicing vram max-vram
        low-vram lowvram medvram memory memory-limit vae-chunk-size
    """,
    ("--compile",): "torch-compile use-compile vae-compile",
    ("--captions",): """
        caption caption-ext caption-extension caption-extention caption-suffix caption-column
        caption-col caption-key caption-field caption-strategy text-column prompt prompts
        save-captions wds-caption-key
    """,
    ("--image-field",): "image-column image-key image-col wds-image-key image-name",
    ("--samples-per-shard",): """
        shard-size samples-per-file number-sample-per-shard maxcount max-count num-per-shard
        images-per-shard samples-per-tar write-batch-size
    """,
    ("--samples-per-file",): "shard-size samples-per-shard max-shard-size",
    ("--samples",): "num-samples n-samples max-samples sample-size limit",
    ("--limit",): """
        max-samples num-samples n-samples max-images max-train-samples num-images n-images head
        first subset max-items
    """,
    ("--sample", "--seed"): "seed random-seed",
    ("--format",): "output-format shard-format encode-format image-format ext save-format",
    ("--to",): "format trainer output-format target-format",
    ("--quality",): "encode-quality jpeg-quality jpg-quality",
    ("--min-side",): "min-size min-image-size minimum-image-size min-resolution",
    ("--max-aspect",): "max-aspect-ratio",
    ("--min-megapixels",): "min-pixels min-area",
    ("--max-pixels",): "max-image-size max-image-area maximum-image-size",
    ("--alpha",): "alpha-mask background",
    ("--latents",): "moments scaling-factor scale raw whiten whitening normalize normalise",
    ("--include",): "pattern glob filter-pattern",
    ("--exclude",): "ignore skip-pattern",
    ("--dry-run",): "plan simulate estimate pretend",
    ("--time-limit",): "timeout read-timeout",
    ("--max-bad",): "max-failures max-errors error-limit allow-failures max-shard-retry",
    ("--on-error",): "skip-errors ignore-errors continue-on-error fail-fast strict",
    ("--skip-existing",): "resume incremental incremental-mode no-overwrite",
    ("--force",): "overwrite yes clobber",
    ("--frames",): "num-frames max-frames n-frames",
    ("--num-frames",): "frames",
    ("--stride",): "frame-stride frame-interval sample-stride every-nth",
    ("--steps",): "num-inference-steps inference-steps num-steps",
    ("--quiet",): "silent",
    ("--log-json",): "log log-file logfile log-dir logging-dir",
    ("--track wandb",): """
        wandb report-to enable-wandb use-wandb wandb-project log-with tracker
        tracker-project-name
    """,
    ("--config",): "config-file dataset-config job yaml toml cfg",
    ("--license",): "licence",
    ("--repeats",): "repeat iterations iters runs",
}
"""Options of ours, with a value where that says it -> what other tools call them, without dashes.

Of several, those are meant that the command has.
"""
OPTION_NOTES = {
    """
        resume resume-from-checkpoint skip-existing incremental incremental-mode continue restart
    """: "latentcli encode needs no option for it: the same command resumes.",
    """
        overwrite force clobber regenerate-cache rebuild no-cache clear-cache
    """: "A store is never overwritten: to make a new one, choose another folder, or delete the"
    " old one.",
    """
        input input-dir input-path input-folder in src source sources image-dir image-folder
        images-dir images image-path data data-dir data-path data-root dataset dataset-dir
        dataset-name dataset-path train-data-dir instance-data-dir url-list input-dataset folder dir
        path
    """: "Sources are named without an option, as in latentcli encode photos.",
    """
        cache-latents cache-latents-to-disk latents-to-disk
    """: "latentcli encode always writes the latents to a store.",
    """
        random-crop color-aug colour-aug augment augmentation
    """: "latentcli encode crops at the centre and changes no colours: an image has one latent.",
    "recursive": "Folders are always searched recursively.",
    "verbose debug-mode log-level": "--debug shows where an error happens.",
    "trust-remote-code": "latentcli runs no code of a repository.",
}
"""What other tools call an option that is not needed here -> why."""
COMMANDS: dict[tuple[str, ...], str] = {
    ("encode",): """
        cache cache-latents precompute pre-compute prepare preprocess pre-process compress extract
        extract-features extract-latents encode-images encode-latents vae-encode vae tokenize create
        make build latents vaecache add append resume continue
    """,
    ("encode", "export"): "convert transform transcode",
    ("decode",): "decompress reconstruct vae-decode decode-latents unpack render",
    ("roundtrip",): """
        compare evaluate eval test quality psnr ssim lpips metrics metric score rfid fid measure
    """,
    ("inspect",): "info show ls list stat stats describe view look head summary report viewer",
    ("verify",): "check validate fsck repair doctor checksum",
    ("plan",): "dry-run dryrun estimate preview cost",
    ("budget",): "size sizes quantize quantise",
    ("sync",): "update refresh prune clean rm remove delete gc",
    ("bench",): "benchmark benchmarks speed profile perf timing",
    ("watch",): "status monitor progress follow tail top logs",
    ("push",): "upload publish share hub",
    ("card",): "readme dataset-card datacard",
    ("export",): "kohya musubi simpletuner webdataset mds litdata parquet",
    ("slurm",): "sbatch submit srun cluster launch",
    ("models",): "model presets list-models zoo",
    ("video-embed",): "embed embed-video video-features",
    ("video-distance",): "fvd distance",
}
"""Commands of ours -> what other tools, and people, call them."""
COMMAND_NOTES = {
    "train training fit finetune fine-tune trainer dataloader loader": (
        "latentcli makes latents and trains nothing. To train on a store, read it in your own loop"
        " with latentcli.LatentDataset, or write what a trainer reads with latentcli export:"
        " docs/guides/training.md shows both."
    ),
    "sample generate infer inference": (
        "latentcli makes no new images; latentcli decode turns latents back into images."
    ),
    "download fetch pull install": (
        "Nothing has to be downloaded beforehand: weights are fetched when a model is first used,"
        " and sources and stores may be URLs."
    ),
    "version": "latentcli --version prints it.",
}
"""What people call a command that is none here -> what to do instead."""


def option_hint(name: str, there: Collection[str]) -> str | None:
    """What to say behind an option that is none of those that a command has.

    ' (did you mean ...?)', or a sentence; empty where the command has nothing of the kind. None
    where no other tool is known to have the option.
    """
    if options := meant(name, there):
        return f" (did you mean {either(options)}?)"
    note = noted(name, OPTION_NOTES)
    return f". {note}" if note else None if options is None else ""


def meant(name: str, there: Collection[str]) -> list[str] | None:
    """Those of the options `there` that do what other tools have an option of this name for.

    An option may come with its value: --dtype bf16. None where no other tool is known to have it.
    """
    known = [ours for ours, theirs in OPTIONS.items() if bare(name) in theirs.split()]
    for ours in known:
        if options := [option for option in ours if option.partition(" ")[0] in there]:
            return options
    return [] if known else None


def command_hint(name: str) -> str | None:
    """What to say behind a command that is none; None where no other tool is known to have it."""
    for ours, theirs in COMMANDS.items():
        if bare(name) in theirs.split():
            return f"Did you mean {either(ours)}?"
    return noted(name, COMMAND_NOTES)


def models_hint(name: str, there: Collection[str]) -> str:
    """What to say behind `models` and a word that is no command of it; `there` are the models."""
    if name in there or "/" in name:
        return f"Did you mean 'latentcli models show {name}'?"
    return "latentcli models lists the models, and latentcli models show NAME describes one."


def noted(name: str, notes: Mapping[str, str]) -> str | None:
    """The sentence about a name; None where there is none."""
    return next((note for names, note in notes.items() if bare(name) in names.split()), None)


def bare(name: str) -> str:
    """A name without dashes in front, as the tables have it: --Vae_Path is vae-path."""
    return name.lstrip("-").replace("_", "-").lower()


def either(names: Sequence[str]) -> str:
    """'a' or 'b'."""
    return " or ".join(map(repr, names))
