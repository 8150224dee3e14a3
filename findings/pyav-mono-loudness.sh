#!/usr/bin/env bash
# PyAV's resampler makes mono of stereo 3 dB louder in floating point than in integers, past full scale.
#
# An expert would guess: the mix of two equal channels is that channel, in any sample format: a mono file and the same
#   sound as two equal channels become the same samples.
# What happens: for float samples FFmpeg's mix has the factors 0.7071 and 0.7071, so that 0.5 and 0.5 become 0.7071 and
#   0.9 and 0.9 become 1.27, beyond full scale. For 16-bit integers it scales the factors down to 0.5 and 0.5. Which of
#   them one gets depends on the decoder: mp3, aac and opus give floats, wav and flac integers.
# Seen with: av 18.1.0, numpy 2.4.6.
# What to do: resample with the stereo layout kept, and take the mean of the channels.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check av==18.1.0 numpy==2.4.6
cd "$folder"

"$folder/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import version

import av
import numpy as np

print(*(f"{name} {version(name)}" for name in ("av", "numpy")))
SAMPLES = 1600


def mixed(level, sample_format, layout):
    """The middle sample of a plain stereo signal after the resampler, as a fraction of full scale."""
    scale = 32768 if sample_format == "s16p" else 1
    kind = np.int16 if sample_format == "s16p" else np.float32
    samples = np.full((2, SAMPLES), level * scale).astype(kind)
    frame = av.AudioFrame.from_ndarray(samples, format=sample_format, layout="stereo")
    frame.sample_rate = 16000
    (out,) = av.AudioResampler(format=sample_format, layout=layout, rate=16000).resample(frame)
    return float(out.to_ndarray()[:, SAMPLES // 2].mean() / scale)


seen = {
    (sample_format, layout, level): mixed(level, sample_format, layout)
    for sample_format in ("fltp", "s16p")
    for layout in ("mono", "stereo")
    for level in (0.5, 0.9)
}
for (sample_format, layout, level), value in seen.items():
    print(f"{level} and {level} in {sample_format} to {layout}: {value:.4f}")

expected = {
    key: key[2] * 2**0.5 if key[:2] == ("fltp", "mono") else key[2] for key in seen
}
if any(abs(seen[key] - expected[key]) > 1e-3 for key in seen):
    sys.exit("changed: float samples are mixed otherwise")
print("as described")
PYTHON
