"""The miniature world: small drawn images with Turkish and English captions, and a small CLIP trained on them."""
