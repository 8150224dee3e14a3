"""The configuration of each command: one frozen dataclass a command, whose docstring is the first line of its --help.

The recipe of a model is one flat YAML file that embed_images, distill and evaluate all read, so a field has one
meaning everywhere, and `recipe.read_config` ignores the fields of the other commands.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import get_type_hints

from training.run.objectives import OBJECTIVES
from training.run.recipe import MAX_SEED, Config, ConfigError, option, read_config
from training.run.source import SourceConfig

DEVICES = ("auto", "cpu", "cuda", "mps")
CLOSED_FORM = "closed_form"  # in an ablation, the row without training
BACKBONE, SCRATCH, STATIC = "dbmdz/bert-base-turkish-cased", "scratch", "static"  # the last also a row of an ablation
WORDS = "words"  # in an ablation, the row of a static backbone of word vectors
POOLINGS = ("mean", "cls")
DEFAULT_EPOCHS, MIN_STEPS = 3.0, 1000
DENSE_LEARNING_RATE = 1e-3
INIT_STEPS = 200  # of a text encoder that has been trained before
# Peak learning rates by backbone, others having that of BACKBONE: fresh weights need a larger one than pretrained ones,
# token vectors the largest, since a step changes those of the batch's tokens alone. Those of `init` are below.
LEARNING_RATES = {BACKBONE: 5e-4, SCRATCH: 1e-3, STATIC: 1e-1}
INIT_LEARNING_RATES = {BACKBONE: 5e-5, STATIC: 1e-2}
SHA256 = re.compile(r"[0-9a-f]{64}")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True, kw_only=True)
class EmbeddingsConfig(SourceConfig):
    """The image model and the folder of its image embeddings."""

    image_model: str = option("clip-ViT-B-32", "Hub id or folder of the image model")
    image_model_revision: str = option("", "revision of the image model on the Hub; empty: the newest")
    embeddings: str = option("", "folder of the image embeddings; empty: RUN/embeddings")
    device: str = option("auto", "device to compute on; auto: the first of cuda, mps and cpu there is", choices=DEVICES)
    json: bool = option(False, "print the result as one JSON object on stdout")

    @property
    def embeddings_folder(self) -> Path:
        """The folder of the image embeddings."""
        return Path(self.embeddings or self.folder / "embeddings")


@dataclass(frozen=True, kw_only=True)
class EmbedConfig(EmbeddingsConfig):
    """Embeds every image once with the frozen image model and stores the image embeddings."""

    image_batch_size: int = option(
        0, "images per batch of the image model; 0: 32 on the CPU, 256 on a GPU of 16 GB or more, 64 elsewhere", low=0
    )
    decode_processes: int = option(
        -1,
        "processes that decode images ahead of the image model; -1: on a GPU as many as leave a core, else none",
        low=-1,
        high=256,
    )
    workers: int = option(
        0, "threads that decode images, where processes do not (decode_processes); 0: one per core", low=0, high=256
    )
    dtype: str = option(
        "auto", "number format to compute in; auto: bf16 where the hardware has it", choices=("auto", "float32", "bf16")
    )
    cluster: str = option("", "Ray cluster that embeds: auto, an address, or local (extra distributed); empty: none")
    cluster_workers: int = option(2, "processes on the cluster, each with its own copy of the image model", low=1)
    shard_size: int = option(4096, "images per shard of embeddings: a killed run loses one shard at most", low=1)
    embedding_dtype: str = option(
        "float32", "number format of the stored embeddings; float16 halves their size", choices=("float32", "float16")
    )


UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class ImportConfig:
    """Stores image embeddings that others have computed, so that distill, ablate and evaluate need no image."""

    vectors: str = option(
        "",
        "vectors of images: folder of clip-retrieval (img_emb/, metadata/), .npy with ids, or Parquet table or folder",
    )
    ids: str = option("", "ids of the rows of a .npy: text file, one a line, or table (.parquet, .csv, .tsv, .jsonl)")
    vector_column: str = option("", "column of the vectors in Parquet; empty: the only one of lists of numbers")
    id_column: str = option("", "column of the image's id; empty: image_id, else its path, as the captions name it")
    image_column: str = option("", "column of the image's path; empty: file_name, image, image_path or path")
    id_prefix: str = option("", "text before each id; with several sources of captions, SOURCE/")
    content_column: str = option("", "column of the SHA-256 of the image's file, to find duplicates by; empty: none")
    text_vectors: str = option(
        "", "vectors of English captions: folder with text_emb_*.npy, .npy with texts, or Parquet; empty: none"
    )
    texts: str = option("", "texts of the rows of a .npy of text vectors: text file, one a line, or table")
    text_column: str = option("", "column of the texts; empty: text or caption")
    text_vector_column: str = option("", "column of the text vectors in Parquet; empty: the only one of lists")
    image_model: str = option("", "Hub id or folder of the image model that made the vectors, also for distill")
    image_model_revision: str = option("", "revision of the image model on the Hub; empty: the newest")
    image_model_sha256: str = option(
        "", f"hash of its weights, as turkish-clip info prints it; empty: computed from the model; or {UNKNOWN}"
    )
    shard_size: int = option(4096, "rows per shard of embeddings", low=1)
    max_skipped_fraction: float = option(0.02, "largest fraction of rows or images that may be skipped", low=0, high=1)
    run: str = option("", "run folder; empty: runs/ and the name of the recipe")
    embeddings: str = option("", "folder of the image embeddings; empty: RUN/embeddings")
    json: bool = option(False, "print the result as one JSON object on stdout")

    def __post_init__(self) -> None:
        for name, example in (("run", "runs/NAME"), ("vectors", "FOLDER"), ("image_model", "the id of its maker")):
            if not getattr(self, name):
                raise ConfigError(f"expected {name!r}, got nothing; add --{name} {example}")
        if self.image_model_sha256 not in ("", UNKNOWN) and not SHA256.fullmatch(self.image_model_sha256):
            raise ConfigError(
                f"expected 'image_model_sha256' of 64 hexadecimal digits or {UNKNOWN}, got "
                f"{self.image_model_sha256!r}; copy what turkish-clip info prints"
            )

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.run)

    @property
    def embeddings_folder(self) -> Path:
        """The folder of the image embeddings."""
        return Path(self.embeddings or self.folder / "embeddings")


@dataclass(frozen=True, kw_only=True)
class DistillConfig(EmbeddingsConfig):
    """Trains a Turkish text encoder on the stored image embeddings: by regression, a contrastive loss, or both."""

    objective: str = option(
        "mse", "regression target and losses (training/run/objectives.py)", choices=tuple(OBJECTIVES)
    )
    bank_size: int = option(
        65_536, "embeddings in the bank of a step, for objectives with one; a larger store is drawn from", low=64
    )
    exchanges: str = option(
        "",
        "file with two words a line that are exchanged in false captions, for objectives with negatives; empty: none",
    )
    text_shift: bool = option(
        False, "shift the targets of captions without an image by the mean difference of image and text embeddings"
    )
    matryoshka: tuple[int, ...] = option(
        (), "shorter widths that the first components are trained to serve alone, such as 256,128; empty: none"
    )
    train_images: int = option(0, "number of training images, chosen by a hash of their ids; 0: all", low=0)
    backbone: str = option(
        BACKBONE,
        "Hub id or folder of a BERT; or scratch: a small new one; or static: one vector for each token, which knows no "
        "order of words and encodes hundreds of times as fast",
    )
    backbone_revision: str = option("", "revision of the backbone, or of static_from, on the Hub; empty: the newest")
    static_from: str = option(
        "",
        "where a static backbone has tokens and vectors from: a backbone as above, or the Hub id, folder or run of a "
        "text encoder; empty: BERTurk",
    )
    word_vectors: str = option(
        "",
        "file of word vectors in the text format of word2vec and fastText (.vec, .txt, also .gz) for a static backbone "
        "of words, in place of static_from; empty: none",
    )
    words: int = option(
        200_000, "words that are read of word_vectors, which has the most frequent ones first", low=1, high=10_000_000
    )
    pooling: str = option(
        "mean",
        "what a text is of the vectors of its tokens: their mean, or that of [CLS], the first one; init has its own",
        choices=POOLINGS,
    )
    init: str = option("", "Hub id or folder of a text encoder to go on from, in place of a backbone; empty: none")
    init_revision: str = option("", "revision of init on the Hub; empty: the newest")
    replay: str = option(
        "", "recipe or run folder of captions that init was trained on and that are trained on again; empty: none"
    )
    replay_fraction: float = option(
        0.5, "fraction of an epoch's captions that are replayed; 0: measured alone", low=0, high=0.99
    )
    scratch_layers: int = option(3, "layers of a scratch backbone", low=1, high=48)
    scratch_hidden: int = option(192, "hidden width of a scratch backbone, a multiple of 32", low=32, high=2048)
    scratch_vocabulary: int = option(2000, "word pieces of a scratch backbone, learnt from the captions", low=100)
    max_tokens: int = option(128, "tokens per caption; longer captions are cut", low=8, high=8192)
    prompt: str = option("", "text before each caption, such as 'query: ' of E5; saved as the model's default prompt")
    dense_start: str = option(
        "auto",
        "weights that the Dense layer starts with: the ridge regression from the backbone's pooled embeddings onto the "
        "regression targets (a closed form), or random ones; auto: ridge, but random for a scratch backbone that is "
        "trained",
        choices=("auto", "ridge", "random"),
    )
    epochs: float = option(
        -1.0,
        "passes over the training captions; 0: none, the closed form alone; -1: 3, or more where that would be fewer "
        "than 1,000 steps; with init as many as make 200",
        low=-1,
    )
    patience: int = option(
        0, "evaluations without a better validation MRR after which the training stops; 0: it never does", low=0
    )
    batch_size: int = option(128, "captions per optimizer step, over all processes and micro-batches", low=1)
    learning_rate: float = option(
        0.0,
        "peak learning rate of AdamW, cosine decay to zero; 0: 5e-4, 1e-3 for a scratch backbone, 0.1 for a static "
        "one, 5e-5 for init, 0.01 for a static init",
        low=0,
    )
    dense_learning_rate: float = option(
        0.0, "peak learning rate of the layers that the backbone lacks; 0: 1e-3, or with init as of the others", low=0
    )
    warmup_fraction: float = option(0.05, "fraction of the steps with linear warm-up", low=0, high=1)
    weight_decay: float = option(0.01, "weight decay of AdamW", low=0)
    ascii_probability: float = option(
        0.1, "probability that a training caption is seen as typed without Turkish letters", low=0, high=1
    )
    case_probability: float = option(
        0.2, "probability that a training caption is seen in upper or lower case, half each", low=0, high=1
    )
    full_stop_probability: float = option(
        0.1, "probability that a training caption is seen with its full stop removed, or with one added", low=0, high=1
    )
    typo_probability: float = option(0.1, "probability that a training caption is seen with a typo", low=0, high=1)
    length_window: int = option(
        0,
        "steps whose captions are sorted by length together, so that batches are padded less; 0: none (LOG.md)",
        low=0,
        high=1_000_000,
    )
    evaluations: int = option(10, "times the validation split is measured; the best checkpoint is kept", low=1)
    gradient_accumulation: int = option(1, "micro-batches that a process divides its part of a batch into", low=1)
    loader_processes: int = option(
        -1,
        "processes that tokenise captions beside the training; -1: as many as leave it a core, at most 4; 0: none",
        low=-1,
        high=64,
    )
    bf16: bool | None = option(
        None, "train in bf16 mixed precision, where the device has it; auto: on a GPU that has it, not on the CPU"
    )
    tf32: bool | None = option(
        None, "multiply float32 numbers as TF32 on a GPU, losses apart; auto: where the GPU has it"
    )
    compile: bool = option(False, "compile the encoder (torch.compile): a slow start that pays off in long runs")
    seed: int = option(0, "seed of the weights, the order and the augmentation", low=0, high=MAX_SEED)
    resume: bool = option(False, "continue from the last checkpoint of the run")

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_multiple_of_32(self, "scratch_hidden")
        if not self.epochs and self.dense_start == "random":
            raise ConfigError(
                f"expected 'dense_start' ridge with 'epochs' 0, the closed form alone, got {self.dense_start!r}; "
                "leave it out, or train"
            )
        if self.replay and not self.init:
            raise ConfigError("expected 'replay' beside 'init', got it alone; name the text encoder to go on from")
        if self.init and not self.epochs:
            raise ConfigError("expected 'init' to be trained, got 'epochs' 0; leave one of them out")
        self._check_static()
        if any(width < 1 for width in self.matryoshka):
            raise ConfigError(f"expected widths above 0 for 'matryoshka', got {min(self.matryoshka)}; take it out")
        self.check_matryoshka(self.objective)

    def _check_static(self) -> None:
        """Checks the options of a static backbone; an ablation may have one in a row beside its backbone."""
        if self.backbone == STATIC and self.prompt:
            raise ConfigError(
                f"expected no 'prompt' with a static backbone, which would only add the same to each caption, got "
                f"{self.prompt!r}; leave it out"
            )
        rows = (self.backbone, *getattr(self, "objectives", ()))  # of an ablation, which has rows beside its backbone
        if self.backbone == STATIC and self.pooling != "mean":
            raise ConfigError(
                f"expected 'pooling' mean with a static backbone, whose texts have no [CLS], got {self.pooling}; "
                "leave it out"
            )
        if self.word_vectors and not {STATIC, WORDS} & set(rows):
            raise ConfigError(
                f"expected 'word_vectors' beside 'backbone' {STATIC}, got {self.backbone}; add --backbone {STATIC}"
            )
        if self.word_vectors and (self.init or (self.static_from and WORDS not in rows)):
            other = "init" if self.init else "static_from"
            raise ConfigError(f"expected 'word_vectors' or {other!r}, got both; leave one of them out")
        if self.static_from and STATIC not in rows:
            raise ConfigError(
                f"expected 'static_from' beside 'backbone' {STATIC}, got {self.backbone}; add --backbone {STATIC}"
            )
        if self.static_from and self.init:
            raise ConfigError("expected 'static_from' or 'init', got both; 'init' has token vectors already")

    def shorter_widths(self, dim: int) -> tuple[int, ...]:
        """Returns the widths of `matryoshka` below the text encoder's, each once, descending.

        Args:
            dim: width of the text encoder's vectors.

        Raises:
            ConfigError: a width is larger than that.
        """
        if any(width > dim for width in self.matryoshka):
            raise ConfigError(
                f"expected widths of at most {dim} for 'matryoshka', got {max(self.matryoshka)}; take it out"
            )
        return tuple(sorted({width for width in self.matryoshka if width < dim}, reverse=True))

    def check_matryoshka(self, *objectives: str) -> None:
        """Checks that no objective is raw where shorter widths are trained.

        Raises:
            ConfigError: one is, whose vectors have no norm that a shorter width could keep.
        """
        raw = [name for name in objectives if name in OBJECTIVES and OBJECTIVES[name].raw]
        if self.matryoshka and raw:
            raise ConfigError(
                f"expected an objective of unit vectors for 'matryoshka', got {', '.join(raw)}; choose another, or "
                "leave matryoshka out"
            )

    @property
    def starts_from_closed_form(self) -> bool:
        """Whether the Dense layer starts as the closed form; that of `init` is kept."""
        untrained = self.backbone == SCRATCH and bool(self.epochs)  # regressing from random features (LOG.md)
        return not self.init and (self.dense_start == "ridge" or (self.dense_start == "auto" and not untrained))

    @property
    def loaded_from(self) -> tuple[str, str]:
        """Hub id or folder of the weights that training starts from, or scratch, and its revision."""
        if self.init:
            return self.init, self.init_revision
        if self.word_vectors and self.backbone == STATIC:
            return self.word_vectors, ""
        return (self.static_from or BACKBONE if self.backbone == STATIC else self.backbone), self.backbone_revision

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate that was given, or else the default for the backbone or for `init`."""
        default = INIT_LEARNING_RATES if self.init else LEARNING_RATES
        return self.learning_rate or default.get(self.backbone, default[BACKBONE])

    @property
    def peak_dense_learning_rate(self) -> float:
        """The learning rate of what the backbone lacks; that of `init` is trained as the rest."""
        return self.dense_learning_rate or (self.peak_learning_rate if self.init else DENSE_LEARNING_RATE)

    def epochs_of(self, steps_per_epoch: int) -> float:
        """Returns the epochs that were given, or else as many as the defaults make of the steps of an epoch."""
        if self.epochs >= 0:
            return self.epochs
        return INIT_STEPS / steps_per_epoch if self.init else default_epochs(steps_per_epoch)


def default_epochs(steps_per_epoch: int) -> float:
    """Returns the default number of epochs: 3, or as many as make 1,000 steps (training/LOG.md)."""
    return max(DEFAULT_EPOCHS, MIN_STEPS / steps_per_epoch)


BY_SET, EQUAL = "set", "equal"  # shares of an attribute's values


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(EmbeddingsConfig):
    """Measures the text encoder of a run on images and wordings that it never saw."""

    model: str = option("", "Hub id or folder of the text encoder; empty: RUN/model")
    split: str = option("test", "split to measure on", choices=("train", "validation", "test"))
    text_batch_size: int = option(256, "texts per batch", low=1)
    bootstrap_samples: int = option(1000, "bootstrap samples of the 95 % intervals", low=0, high=1_000_000)
    report_queries: int = option(12, "Turkish queries shown in the report", low=0)
    bias: str = option(
        "",
        "labelled images to measure bias on: any source with columns of attributes, also the run's own, or a folder "
        "with a subfolder for each value; empty: bias is not measured",
    )
    bias_columns: tuple[str, ...] = option((), "columns of attributes in bias, one value an image, such as gender,age")
    bias_prompts: str = option(
        "", "YAML file of prompts, a list or groups of lists; empty: neutral ones about people, in Turkish"
    )
    bias_k: int = option(
        0, "images found first by a prompt that are looked at; 0: a tenth of the images, at most 1000", low=0
    )
    bias_desired: str = option(
        BY_SET,
        "shares of the values that count as unbiased: set: those among all images; equal: the same of each",
        choices=(BY_SET, EQUAL),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        given = [name for name in ("bias_columns", "bias_prompts") if getattr(self, name)]
        if given and not self.bias:
            raise ConfigError(
                f"expected 'bias' beside {given[0]!r}, got it alone; name the labelled images with --bias"
            )


@dataclass(frozen=True, kw_only=True)
class LeakageConfig(SourceConfig):
    """Finds the images of a source that a benchmark tests on, by Flickr and COCO id."""

    benchmark: str = option("", "file of the benchmark's image names or ids, one per line")
    split: str = option("train", "split of the source to search", choices=("train", "validation", "test"))
    json: bool = option(False, "print the result as one JSON object on stdout")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.benchmark:
            raise ConfigError(
                "expected 'benchmark' to name a list of image names or ids, got nothing; add --benchmark FILE, with "
                "one name or id a line"
            )


BENCHMARK_TASKS = (
    "XM3600T2IRetrieval",
    "XM3600I2TRetrieval",
    "XFlickr30kCoT2IRetrieval",
    "XFlickr30kCoI2TRetrieval",
    "WITT2IRetrieval",
    "WITI2TRetrieval",
)
# MTEB's Turkish text tasks that measure a sentence by itself: similarity of sentences, and classes of sentences.
TEXT_TASKS = (
    "STS17",
    "STS22.v2",
    "MassiveIntentClassification",
    "MassiveScenarioClassification",
    "TurkishMovieSentimentClassification.v2",
    "TurkishProductSentimentClassification.v2",
)


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Measures a text encoder and its image model on MTEB's Turkish tasks, of images or of text (extra benchmark)."""

    run: str = option("", "folder of the results; a training run is measured in its own")
    model: str = option("", "Hub id or folder of the text encoder or pair; empty: that of the run")
    image_model: str = option("", "Hub id or folder of the image model; empty: the one that the model names")
    tasks: tuple[str, ...] = option(
        BENCHMARK_TASKS, "MTEB tasks, separated by commas; text: its Turkish text tasks; none: only the data of --data"
    )
    subset: str = option("tr", "name of the language within a task; tr also finds tur, tur_Latn, turkish and en-tr")
    data: str = option("", "benchmark that MTEB lacks, as any source of captions: a folder, table or Hub data set")
    data_name: str = option("", "name of data in the table of results, such as XTD10; empty: the last part of data")
    data_captions: tuple[str, ...] = option((), "columns of Turkish captions in data; empty: captions, caption or text")
    data_split: str = option("", "split of data; empty: all of it", choices=("", "train", "validation", "test"))
    data_ids: str = option("", "file of the image_ids of data to measure, one per line; empty: all of data")
    batch_size: int = option(64, "texts or images per batch", low=1)
    device: str = option("auto", "device to compute on; auto: the first of cuda, mps and cpu there is", choices=DEVICES)
    json: bool = option(False, "print the result as one JSON object on stdout")

    def __post_init__(self) -> None:
        if not self.run:
            raise ConfigError("expected 'run' to name the run folder, got nothing; add --run runs/NAME")
        if self.tasks == ("none",) and not self.data:
            raise ConfigError("expected 'tasks' or 'data' to measure on, got neither; add --data SOURCE")

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.run)

    @property
    def task_names(self) -> tuple[str, ...]:
        """The names of MTEB's tasks, each once, with `text` and `none` resolved."""
        named = [TEXT_TASKS if name == "text" else (name,) for name in self.tasks if name != "none"]
        return tuple(dict.fromkeys(task for names in named for task in names))


@dataclass(frozen=True, kw_only=True)
class AblateConfig(EmbedConfig, DistillConfig, EvaluateConfig):
    """Distils once for each objective, data size and seed from the same image embeddings, and compares the results."""

    objectives: tuple[str, ...] = option(
        (CLOSED_FORM, STATIC, *OBJECTIVES),
        "objectives to compare, separated by commas; closed_form: mse with no training; static: mse with a static "
        "backbone, from static_from or else from the backbone; words: mse with one of word_vectors",
    )
    poolings: tuple[str, ...] = option(
        (), "poolings to compare with each objective, mean,cls; empty: that of the option pooling"
    )
    split: str = option("validation", "split to compare on", choices=("train", "validation", "test"))
    seeds: tuple[int, ...] = option((0, 1, 2), "seeds to train with, separated by commas", low=0, high=MAX_SEED)
    sizes: tuple[int, ...] = option((0,), "numbers of training images, comma-separated, at equal steps; 0: all", low=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        known = (CLOSED_FORM, STATIC, WORDS, *OBJECTIVES)
        unknown = [name for name in self.objectives if name not in known]
        if unknown or not self.objectives:
            raise ConfigError(
                f"expected 'objectives' out of {', '.join(known)}, got {unknown or 'none'}; choose among them"
            )
        self.check_matryoshka(*self.objectives)
        if wrong := [name for name in self.poolings if name not in POOLINGS]:
            raise ConfigError(f"expected 'poolings' out of {', '.join(POOLINGS)}, got {wrong[0]!r}; choose among them")
        if WORDS in self.objectives and not self.word_vectors:
            raise ConfigError(f"expected 'word_vectors' for the row {WORDS}, got none; add --word_vectors FILE")
        if not self.seeds or not self.sizes:
            raise ConfigError(
                f"expected 'seeds' and 'sizes', got {self.seeds} and {self.sizes}; give at least one each"
            )


NAIVE, REPLAYED, JOINT = "naive", "replay", "joint"
METHODS = (NAIVE, REPLAYED, JOINT)


@dataclass(frozen=True, kw_only=True)
class ContinualConfig(EmbedConfig, DistillConfig, EvaluateConfig):
    """Teaches a text encoder subjects one after another, and measures after each what it knows of all of them."""

    subjects: tuple[str, ...] = option(
        (),
        "subjects in the order in which they are learnt, each as its labels joined by +, such as kedi+kuş,ev+araba; "
        "empty: subject_count groups of all labels, in the order of the Turkish alphabet",
    )
    subject_count: int = option(4, "number of subjects that all labels are divided into", low=2, high=100)
    methods: tuple[str, ...] = option(
        METHODS,
        "ways of learning to compare: naive: each subject alone; replay: with the captions of those before "
        "(replay_fraction); joint: all at once, which is the most that can be expected",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        unknown = [name for name in self.methods if name not in METHODS]
        if unknown or not self.methods:
            raise ConfigError(
                f"expected 'methods' out of {', '.join(METHODS)}, got {unknown or 'none'}; choose among them"
            )
        if self.replay or not self.replay_fraction:
            raise ConfigError(
                "expected no 'replay' and a 'replay_fraction' above 0, since the earlier subjects are replayed, got "
                f"{self.replay!r} and {self.replay_fraction:g}; leave them out"
            )
        if not self.epochs:
            raise ConfigError("expected subjects that are trained on, got 'epochs' 0; leave it out")
        if self.backbone == STATIC:
            raise ConfigError(f"expected a BERT or {SCRATCH} as 'backbone', got {STATIC}; name another")
        if self.train_images:
            raise ConfigError(
                f"expected subjects of all their images, got 'train_images' {self.train_images}; leave it out"
            )
        if len(self.subjects) == 1:
            raise ConfigError("expected two 'subjects' or more, got one; separate them by commas")


EXPORTS = ("onnx", "int8")


@dataclass(frozen=True, kw_only=True)
class CompareConfig(SourceConfig):
    """Measures several models for a choice: quality on one test, size, memory, and time of a query and of an image."""

    models: tuple[str, ...] = option(
        (),
        "models to compare, separated by commas: Hub ids, folders or runs of text encoders, of pairs or of image "
        "models, and folders of ONNX exports",
    )
    exports: tuple[str, ...] = option((), "formats that each model is exported to for rows of its own: onnx, int8")
    baselines: bool = option(False, "a row for each baseline of training/evaluation/baselines.yaml, too")
    image_model: str = option("", "Hub id or folder of the image model of models that name none; empty: their own")
    embeddings: str = option(
        "", "folder of stored image embeddings of the test, for models whose image model is not here; empty: none"
    )
    split: str = option("test", "split to measure on", choices=("train", "validation", "test"))
    bootstrap_samples: int = option(1000, "bootstrap samples of the 95 % intervals", low=0, high=1_000_000)
    query: str = option("karda oynayan iki köpek", "text whose time is measured")
    repeats: int = option(30, "times that the query is timed, the models taking turns", low=1, high=10_000)
    image_batch_size: int = option(8, "images that are embedded, and timed, together", low=1, high=1024)
    threads: int = option(1, "threads that compute; 0: one per core", low=0, high=1024)
    device: str = option("cpu", "device to compute on; auto: the first of cuda, mps and cpu there is", choices=DEVICES)
    json: bool = option(False, "print the result as one JSON object on stdout")

    def __post_init__(self) -> None:
        if self.captions or self.sources:
            super().__post_init__()
        if not self.run:
            raise ConfigError("expected 'run' to name the folder of the results, got nothing; add --run runs/NAME")
        if not self.models and not self.baselines:
            raise ConfigError("expected 'models' to compare, got none; add --models runs/demo,ID")
        if repeated := [name for name in self.models if self.models.count(name) > 1]:
            raise ConfigError(f"expected each of 'models' once, got {repeated[0]} twice; take one out")
        if unknown := [name for name in self.exports if name not in EXPORTS]:
            raise ConfigError(f"expected 'exports' out of {', '.join(EXPORTS)}, got {unknown[0]!r}; choose among them")
        if not self.query.strip():
            raise ConfigError("expected 'query' to be a text, got nothing; leave it out")
        if self.embeddings and not (self.captions or self.sources):
            raise ConfigError("expected 'captions' beside 'embeddings', got none; add --captions SOURCE")

    @property
    def embeddings_folder(self) -> Path:
        """The folder of the stored image embeddings."""
        return Path(self.embeddings)


RESNET_BLOCKS = ("basic", "bottleneck")


@dataclass(frozen=True, kw_only=True)
class SmallModelOptions:
    """The options that the trainings of small models on decoded images have in common."""

    evaluations: int = option(4, "checkpoints over the run", low=1)
    bf16: bool = option(False, "train in bf16 mixed precision, where the device has it")
    half: bool = option(False, "save the weights in float16, at half the size; they load as float32")
    resume: bool = option(False, "continue from the last checkpoint of the run")


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(SmallModelOptions, SourceConfig):
    """Trains a small CLIP from scratch, by symmetric cross-entropy over images and their captions."""

    image_size: int = option(64, "side of an image in pixels, a multiple of patch_size", low=8, high=1024)
    patch_size: int = option(8, "side of a patch in pixels", low=1, high=128)
    image_tower: str = option(
        "vit", "architecture of the image tower: vit, CLIP's transformer; or resnet", choices=("vit", "resnet")
    )
    vision_layers: int = option(4, "layers of a vit", low=1, high=48)
    vision_hidden: int = option(96, "width of a vit, a multiple of 32", low=32, high=2048)
    resnet_widths: tuple[int, ...] = option(
        (32, 64, 128, 192), "widths of a resnet's stages, multiples of 4; each has half the side of the one before"
    )
    resnet_blocks: tuple[int, ...] = option((1, 1, 1, 1), "blocks in each of a resnet's stages")
    resnet_block: str = option(
        "basic", "kind of a resnet's blocks: basic, of ResNet-18; or bottleneck, of ResNet-50", choices=RESNET_BLOCKS
    )
    text_layers: int = option(3, "layers of the text tower", low=1, high=48)
    text_hidden: int = option(64, "width of the text tower, a multiple of 32", low=32, high=2048)
    vocabulary: int = option(700, "tokens in the vocabulary of the text tower, learnt from the captions", low=514)
    caption_tokens: int = option(32, "tokens per caption; longer captions are cut", low=8, high=512)
    dim: int = option(512, "dimension of the embeddings", low=8, high=4096)
    epochs: float = option(12.0, "passes over the training images, with one caption each", low=0.001)
    batch_size: int = option(256, "images per optimizer step; each has the others as in-batch negatives", low=2)
    learning_rate: float = option(1e-3, "peak learning rate of AdamW, cosine decay to zero", low=0)
    warmup_fraction: float = option(0.05, "fraction of the steps with linear warm-up", low=0, high=1)
    weight_decay: float = option(0.1, "weight decay of AdamW", low=0)
    shortest_first: float = option(
        0.0, "initial fraction of the epochs with the shorter half of captions only (training/LOG.md)", low=0, high=1
    )
    longest_next: float = option(
        0.0,
        "fraction of the epochs, after those, with the longer half of captions only (training/LOG.md)",
        low=0,
        high=1,
    )
    negative_columns: tuple[str, ...] = option(
        (),
        "columns of captions that are false for their image, text or list: hard negatives; as many as there are "
        "captions: each is for the caption in its place, an empty one for none",
    )
    label_weight: float = option(
        0.0, "weight of a loss by which images choose their labels (label_column), too, among all labels", low=0
    )
    augment: float = option(0.5, "image augmentation: strength of shifts, scaling, rotation, shading", low=0, high=1)
    device: str = option("auto", "device to compute on; auto: the first of cuda, mps and cpu there is", choices=DEVICES)
    seed: int = option(0, "seed of the weights, the order and the augmentation", low=0, high=MAX_SEED)
    json: bool = option(False, "print the result as one JSON object on stdout")

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(source.weight != 1 for source in self.all_sources):
            raise ConfigError(
                "expected sources of weight 1 for pretraining, which sees each image once an epoch, got others; "
                "leave 'weight' out"
            )
        _check_multiple_of_32(self, "vision_hidden", "text_hidden")
        self._check_resnet()
        if self.image_tower == "vit" and self.image_size % self.patch_size:
            raise ConfigError(
                f"expected 'image_size' to be a multiple of patch_size {self.patch_size}, got {self.image_size}"
            )

    def _check_resnet(self) -> None:
        """Checks the stages of a ResNet, of which the first has a quarter of the image's side."""
        widths, blocks = self.resnet_widths, self.resnet_blocks
        if not widths or any(not 8 <= width <= 8192 or width % 4 for width in widths):
            raise ConfigError(f"expected 'resnet_widths' as multiples of 4 from 8 to 8192, got {widths}; change them")
        if len(blocks) != len(widths) or any(not 1 <= number <= 64 for number in blocks):
            raise ConfigError(
                f"expected 'resnet_blocks' as {len(widths)} numbers from 1 to 64, one for each of 'resnet_widths', got "
                f"{blocks}; change them"
            )
        smallest = 4 * 2 ** (len(widths) - 1)
        if self.image_tower == "resnet" and self.image_size < smallest:
            raise ConfigError(
                f"expected 'image_size' of at least {smallest}, as {len(widths)} stages of a resnet need it, got "
                f"{self.image_size}; change one"
            )


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig(SmallModelOptions, SourceConfig):
    """Trains a small VQ-autoencoder on images, through whose codes `turkish-clip draw` draws."""

    image_size: int = option(64, "side of an image in pixels, a multiple of 8", low=16, high=512)
    channels: tuple[int, ...] = option(
        (16, 32, 64, 80), "width of the feature maps, from the image on; each has half the side of the one before"
    )
    codes: int = option(256, "entries in the codebook", low=2, high=65_536)
    code_width: int = option(8, "width of an entry", low=1, high=512)
    commitment: float = option(1.0, "weight of the distance between codes and their entries", low=0)
    image_model: str = option(
        "", "Hub id or folder of an image model that compares the decoded images, too; empty: pixels alone do"
    )
    image_model_revision: str = option("", "branch, tag or commit of the image model on the Hub")
    tower_weight: float = option(
        0.3, "weight of the cosine between its vectors of an image and of the decoded one, beside the pixels", low=0
    )
    epochs: float = option(8.0, "passes over the training images", low=0.001)
    batch_size: int = option(64, "images per optimizer step", low=1)
    learning_rate: float = option(2e-3, "peak learning rate of AdamW, cosine decay to zero", low=0)
    device: str = option("auto", "device to compute on; auto: the first of cuda, mps and cpu there is", choices=DEVICES)
    seed: int = option(0, "seed of the weights and the order", low=0, high=MAX_SEED)
    json: bool = option(False, "print the result as one JSON object on stdout")

    def __post_init__(self) -> None:
        super().__post_init__()
        step = 2 ** (len(self.channels) - 1)
        if not self.channels or any(width < 8 or width % 8 for width in self.channels):
            raise ConfigError(f"expected 'channels' as multiples of 8, got {self.channels}; change them")
        if self.image_size % step:
            raise ConfigError(
                f"expected 'image_size' to be a multiple of {step}, as {len(self.channels)} channels have it, got "
                f"{self.image_size}; change one"
            )


@dataclass(frozen=True, kw_only=True)
class DecoderConfig(SmallModelOptions, EmbeddingsConfig):
    """Trains a small decoder from image vectors to images, on stored image embeddings."""

    channels: tuple[int, ...] = option(
        (128, 96, 96, 64), "width of the feature maps, from 4 pixels on; each has twice the side of the one before"
    )
    tower_weight: float = option(
        0.1,
        "weight of the cosine between the vector and that of the decoded image, beside the pixels' difference",
        low=0,
    )
    noise: float = option(0.3, "length of the noise on a unit vector, at the most; texts are not quite images", low=0)
    epochs: float = option(16.0, "passes over the training images", low=0.001)
    batch_size: int = option(64, "images per optimizer step", low=1)
    learning_rate: float = option(2e-3, "peak learning rate of AdamW, cosine decay to zero", low=0)
    seed: int = option(0, "seed of the weights, the order and the noise", low=0, high=MAX_SEED)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= len(self.channels) <= 8 or any(width < 8 or width % 8 for width in self.channels):
            raise ConfigError(f"expected 'channels' as 1 to 8 multiples of 8, got {self.channels}; change them")

    @property
    def image_size(self) -> int:
        """Side of the images in pixels."""
        return int(4 * 2 ** len(self.channels))


@dataclass(frozen=True, kw_only=True)
class JudgeConfig:
    """Draws from words of the miniature world in several ways, and has a second small CLIP say what is drawn."""

    run: str = option("", "run folder, which gets the drawings and judged.json; those that are there are kept")
    model: str = option("", "text encoder or run that the words are encoded by")
    image_model: str = option("", "Hub id or folder of the image model; empty: the one that the model names")
    judge: str = option(
        "training/mini/judge", "folder of a small CLIP that was trained apart: other images, other seed"
    )
    generator: str = option("", "folder of a VQ-autoencoder; empty: nothing is drawn by one")
    decoder: str = option("", "folder of a decoder; empty: nothing is drawn by one")
    fourier: bool = option(True, "draw by a Fourier canvas, too")
    vectors: tuple[str, ...] = option(
        ("turkish", "english", "image"),
        "whose vectors are drawn: of the Turkish text encoder, the image model's English tower, an image of the words",
    )
    prompts: int = option(100, "how many things and colours are drawn", low=1, high=162)
    steps: int = option(200, "steps of the optimisation", low=1)
    crops: int = option(16, "crops that the image model sees in a step", low=1)
    device: str = option("auto", "device to compute on; auto: the first of cuda, mps and cpu there is", choices=DEVICES)
    seed: int = option(0, "seed of the prompts and the drawings", low=0, high=MAX_SEED)
    json: bool = option(False, "print the result as one JSON object on stdout")

    def __post_init__(self) -> None:
        for name, example in (("run", "runs/drawn"), ("model", "runs/demo"), ("judge", "training/mini/judge")):
            if not getattr(self, name):
                raise ConfigError(f"expected {name!r}, got nothing; add --{name} {example}")
        unknown = [name for name in self.vectors if name not in ("turkish", "english", "image")]
        if unknown or not self.vectors:
            raise ConfigError(
                f"expected 'vectors' out of turkish, english, image, got {unknown or 'none'}; choose among them"
            )

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.run)


@dataclass(frozen=True, kw_only=True)
class PublishConfig(SourceConfig):
    """Writes a finished run as a folder for the Hub, checks it in an isolated process, and uploads it if asked."""

    push: str = option("", "Hub id of the repository to upload to; empty: nothing is uploaded")
    private: bool = option(False, "make a new repository private")
    revision: str = option("", "branch to upload to, created where it is missing; empty: main")
    create_pr: bool = option(False, "upload as a pull request")
    paired: bool = option(False, "publish text encoder and image model as one pair, in place of the text encoder alone")
    model_id: str = option("", "Hub id of the text encoder, as the card names it; empty: that of push")
    paired_id: str = option("", "Hub id of the pair, as the card names it; empty: none")
    image_model_id: str = option("", "Hub id of a copy of the image model, for a run that used a folder; empty: none")
    license: str = option("", "licence of the weights, as the Hub abbreviates it, for example apache-2.0")
    author: str = option("", "author to cite; empty: the owner in the Hub id")
    limits: str = option("", "sentence for the limits on the model card: what is particular to this model")
    json: bool = option(False, "print the result as one JSON object on stdout")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("push", "model_id", "paired_id"):
            if getattr(self, name) and not HUB_ID.fullmatch(getattr(self, name)):
                raise ConfigError(
                    f"expected {name!r} to be a Hub id such as org/turkish-clip-text, got {getattr(self, name)!r}; "
                    "correct it"
                )

    @property
    def repository(self) -> str:
        """The Hub id that is published."""
        return self.push or (self.paired_id if self.paired else self.model_id)

    @property
    def text_id(self) -> str:
        """The Hub id of the text encoder."""
        return self.model_id or ("" if self.paired else self.push)

    @property
    def output(self) -> Path:
        """The folder that is published."""
        return self.folder / "publish" / ("paired" if self.paired else "text")


def _check_multiple_of_32(config: SourceConfig, *fields: str) -> None:
    """Checks that fields can be divided into attention heads, which are 32 wide."""
    for field in fields:
        if getattr(config, field) % 32:
            raise ConfigError(f"expected {field!r} to be a multiple of 32, got {getattr(config, field)}; change it")


def read(config_type: type[Config], argv: list[str]) -> Config:
    """Reads the configuration of a command, as `read_config` does; fields of the other commands are ignored.

    Args:
        config_type: the command's configuration.
        argv: the command line without the program.
    """
    commands = (
        EmbedConfig,
        ImportConfig,
        DistillConfig,
        EvaluateConfig,
        PretrainConfig,
        AutoencoderConfig,
        DecoderConfig,
        JudgeConfig,
        PublishConfig,
    )
    everything = {name: kind for command in commands for name, kind in get_type_hints(command).items()}
    return read_config(config_type, argv, known_elsewhere=everything)
