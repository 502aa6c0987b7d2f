"""What a topic asks of the batches that are sent to it. Pure."""

from __future__ import annotations

from dataclasses import replace

from streamkit.client.metadata import MetadataStore
from streamkit.client.options import ProducerOptions
from streamkit.errors import UsageError
from streamkit.limits import BATCH_BYTES_HARD_MAX
from streamkit.protocol.compression import Codec


def codec_for_topic(topic: str, metadata: MetadataStore, options: ProducerOptions) -> Codec:
    """Return what batches are compressed with: what the topic asks for, else what is chosen.

    Raises:
        UsageError: Another one is chosen than the topic asks for.
    """
    found = metadata.topic(topic)
    asked = None if found is None else found.spec.compression.codec
    chosen = options.compression
    if asked is None:
        return chosen or Codec.NONE
    if chosen is not None and chosen is not asked:
        raise UsageError(
            f"topic {topic!r} asks for {asked.name.lower()} compression, "
            f"the producer is set to {chosen.name.lower()}",
            hint="leave compression out: the topic's is taken",
        )
    return Codec(asked)


def within_segment(
    options: ProducerOptions, codec: Codec, segment_bytes: int | None
) -> ProducerOptions:
    """Keep batches below the size of a segment: a server refuses larger ones.

    A codec may add something to what cannot be compressed.
    """
    if segment_bytes is None or segment_bytes >= BATCH_BYTES_HARD_MAX:
        return options
    spare = 0 if codec is Codec.NONE else 64 + segment_bytes // 256
    most = max(1, segment_bytes - spare)
    return replace(options, batch_size_bytes=min(options.batch_size_bytes, most))
