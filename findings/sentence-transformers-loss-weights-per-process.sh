#!/usr/bin/env bash
# On several processes, the weights of a sentence-transformers loss are trained by each process for itself.
#
# An expert would guess: the trainer puts everything that its optimizer updates under DistributedDataParallel. The
#   weights of a loss (SoftmaxLoss has a classifier, others a learnt temperature) are in the optimizer; so their
#   gradients are averaged over the processes, as those of the encoder are.
# What happens: only the encoder is wrapped, and the loss stays outside. The encoder ends equal on all processes. The
#   loss's weights follow the gradients of each process's own rows and drift apart without a word, and each process
#   computes the encoder's gradients with a head of its own. With one process nothing is wrong.
# Seen with: sentence-transformers 6.2.0, transformers 5.24.0, torch 2.13.0, accelerate 1.15.0; two processes on one
#   CPU. Installs 1 GB (torch for CPUs; other builds bring several GB).
# What to do: average the gradients of the loss's weights yourself before each step, or train them in the model.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check sentence-transformers==6.2.0 transformers==5.24.0 \
  torch==2.13.0 accelerate==1.15.0 datasets==5.2.0 numpy==2.4.6
cd "$folder"
export HF_HOME="$folder/home" HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1

cat > train.py <<'PYTHON'
import json
import os
from pathlib import Path

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.losses import SoftmaxLoss
from sentence_transformers.sentence_transformer.modules import Pooling
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

rank = int(os.environ.get("RANK", "0"))
torch.manual_seed(0)
words = ["[PAD]", "[UNK]", *"abcdefgh"]
tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
encoder = f"encoder-{rank}"
PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(encoder)
shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
BertModel(BertConfig(vocab_size=len(words), **shape)).save_pretrained(encoder)

model = SentenceTransformer(modules=[Transformer(encoder), Pooling(16)], device="cpu")
loss = SoftmaxLoss(model, 16, num_labels=2)
before = loss.classifier.weight.detach().clone()
rows = Dataset.from_dict({"a": list("abcdefgh") * 4, "b": list("hgfedcba") * 4, "label": [0, 1] * 16})
arguments = SentenceTransformerTrainingArguments(
    "out", max_steps=8, per_device_train_batch_size=4, learning_rate=1e-2, use_cpu=True, ddp_backend="gloo",
    report_to="none", save_strategy="no", disable_tqdm=True,
)
SentenceTransformerTrainer(model=model, args=arguments, train_dataset=rows, loss=loss).train()
head = loss.classifier.weight.detach()
found = {
    "encoder": [weight.detach().double().sum().item() for weight in model.parameters()],
    "head": head.flatten().tolist(),
    "moved": (head - before).abs().max().item(),
}
Path(f"rank-{rank}.json").write_text(json.dumps(found))
PYTHON

"$folder/venv/bin/torchrun" --nproc-per-node 2 train.py >log 2>&1 || { tail -n 20 log; exit 1; }

"$folder/venv/bin/python" - <<'PYTHON'
import json
import sys
from importlib.metadata import version
from pathlib import Path

print(*(f"{name} {version(name)}" for name in ("sentence-transformers", "transformers", "torch", "accelerate")))
first, second = (json.loads(Path(f"rank-{rank}.json").read_text()) for rank in (0, 1))
encoder = max(abs(a - b) for a, b in zip(first["encoder"], second["encoder"]))
head = max(abs(a - b) for a, b in zip(first["head"], second["head"]))
print(f"largest difference between the two processes: encoder (sums of weights) {encoder:.1e}, classifier {head:.1e}")
print(f"largest change of the classifier by the training: {first['moved']:.1e}")
if encoder > 1e-6:
    sys.exit("changed: the encoders differ, too")
if first["moved"] < 1e-3:
    sys.exit("changed: the classifier is not trained")
if head < 1e-3:
    sys.exit("changed: the classifier is the same on both processes")
print("as described")
PYTHON
