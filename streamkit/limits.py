"""Every bound in one place. Names end with the unit, then `max` or `min`."""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

# A response is at least its correlation id, a request at least its header.
FRAME_BYTES_MIN: Final = 4

# A stock producer may pack 100 batches of 1 MiB into one request. A TLS hello read as
# a length is about 369 million, so it is refused here.
FRAME_BYTES_MAX: Final = 128 * MIB

# Before a peer has introduced itself it gets no more memory than its first frame needs.
FIRST_FRAME_BYTES_MAX: Final = 64 * KIB

BATCH_BYTES_MAX: Final = 2 * MIB
BATCH_BYTES_HARD_MAX: Final = 32 * MIB
RECORDS_PER_BATCH_MAX: Final = 1_000_000
DECOMPRESSED_BATCH_BYTES_MAX: Final = 32 * MIB
# Up to the size of a batch of ours any ratio is fine; above it one that grows more is a bomb.
DECOMPRESSION_RATIO_FREE_BYTES: Final = BATCH_BYTES_MAX
DECOMPRESSION_RATIO_MAX: Final = 1_000

STRING_BYTES_MAX: Final = 32_767
MAP_ENTRIES_MAX: Final = 65_535
TOPIC_NAME_BYTES_MAX: Final = 63
NESTING_MAX: Final = 16

PENDING_REQUESTS_MAX: Final = 128
STREAMS_PER_CONNECTION_MAX: Final = 256
CONNECTIONS_MAX: Final = 2_048
# A client has one to the SC, one to the SPU, and one for each of its consumers: a few hundred
# small programs on one machine have room.
CONNECTIONS_PER_ADDRESS_MAX: Final = 1_024
# Connections above these that are told so, at one time; more are closed without an answer.
REFUSALS_MAX: Final = 256
CONNECTION_BYTES_IN_FLIGHT_MAX: Final = 160 * MIB
BYTES_IN_FLIGHT_MAX: Final = 512 * MIB
HANDSHAKE_S_MAX: Final = 5.0
FRAME_S_MAX: Final = 30.0
IDLE_S_MAX: Final = 600.0

TOPICS_MAX: Final = 1_000
PARTITIONS_MAX: Final = 10_000
SMARTMODULES_MAX: Final = 1_000
# All of them fit into one answer of a List.
SMARTMODULES_BYTES_MAX: Final = 64 * MIB
OPEN_FILES_MAX: Final = 512
SYNC_GROUP_BYTES_MAX: Final = 4 * MIB
JOURNAL_BYTES_MAX: Final = 4 * MIB
JOURNAL_SYNC_S_MAX: Final = 0.1

SEGMENT_BYTES_MIN: Final = 1_024
SEGMENT_BYTES_DEFAULT: Final = 1_024 * MIB
PARTITION_BYTES_MIN: Final = 2_048
RETENTION_S_MIN: Final = 10
INDEX_INTERVAL_BYTES: Final = 4 * KIB

# What one fetch may bring unless the caller says otherwise; the stock client's default.
FETCH_BYTES_DEFAULT: Final = 1_048_890
# What the broker gives at the most, whatever is asked for: per partition, and per answer.
FETCH_BYTES_MAX: Final = 16 * MIB
FETCH_ANSWER_BYTES_MAX: Final = 64 * MIB
BATCH_BYTES_DEFAULT: Final = 16_384
REQUEST_BYTES_DEFAULT: Final = 1_048_576

CHUNK_RECORDS_MAX: Final = 4_096
CHUNK_BYTES_MAX: Final = 1 * MIB
# What a generator of the user's may be ahead of the job.
FEED_BYTES_MAX: Final = 8 * MIB

# What must hold between the bounds. Checked at import: a bad edit cannot start.
assert FRAME_BYTES_MIN < BATCH_BYTES_MAX < BATCH_BYTES_HARD_MAX < FRAME_BYTES_MAX
assert FRAME_BYTES_MAX < CONNECTION_BYTES_IN_FLIGHT_MAX < BYTES_IN_FLIGHT_MAX
assert SMARTMODULES_BYTES_MAX + SMARTMODULES_MAX * STRING_BYTES_MAX < FRAME_BYTES_MAX
assert REFUSALS_MAX < CONNECTIONS_PER_ADDRESS_MAX <= CONNECTIONS_MAX
assert FRAME_BYTES_MAX < 2**31, "the length field is an i32"
