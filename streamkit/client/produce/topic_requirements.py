"""What a topic requires of batches: their compression and largest size. Pure."""

from __future__ import annotations

from dataclasses import replace

from streamkit.client.metadata import MetadataStore
from streamkit.client.options import ProducerOptions
from streamkit.errors import UsageError
from streamkit.limits import BATCH_BYTES_HARD_MAX
from streamkit.protocol.compression import Codec


def codec_for_topic(topic: str, metadata: MetadataStore, options: ProducerOptions) -> Codec:
    """Return the codec for batches: the one the topic requires, or else the producer's.

    Raises:
        UsageError: The producer is set to another codec than the topic requires.
    """
    found = metadata.topic(topic)
    required = None if found is None else found.spec.compression.codec
    chosen = options.compression
    if required is None:
        return chosen or Codec.NONE
    if chosen is not None and chosen is not required:
        raise UsageError(
            f"topic {topic!r} requires {required.name.lower()} compression, "
            f"but the producer is set to {chosen.name.lower()}",
            hint="leave out compression to use the compression of the topic",
        )
    return Codec(required)


def within_segment(
    options: ProducerOptions, codec: Codec, segment_bytes: int | None
) -> ProducerOptions:
    """Limit batches to the size of a segment, because a server rejects larger ones.

    With a codec the limit is lower, because incompressible data can grow a little.
    """
    if segment_bytes is None or segment_bytes >= BATCH_BYTES_HARD_MAX:
        return options
    spare = 0 if codec is Codec.NONE else 64 + segment_bytes // 256
    most = max(1, segment_bytes - spare)
    return replace(options, batch_size_bytes=min(options.batch_size_bytes, most))
