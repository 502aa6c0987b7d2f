"""Every bound in one place. Names end with the unit, then `max` or `min`."""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

# The smallest frame is a response with only its correlation id.
FRAME_BYTES_MIN: Final = 4

# A stock producer may send 100 batches of 1 MiB in one request. If a client sends a TLS
# hello, its first bytes look like a length of about 369 million, which this limit refuses.
FRAME_BYTES_MAX: Final = 128 * MIB

# Until a peer has sent its first frame, it cannot make the server allocate more than this.
FIRST_FRAME_BYTES_MAX: Final = 64 * KIB

BATCH_BYTES_MAX: Final = 2 * MIB
BATCH_BYTES_HARD_MAX: Final = 32 * MIB
RECORDS_PER_BATCH_MAX: Final = 1_000_000
DECOMPRESSED_BATCH_BYTES_MAX: Final = 32 * MIB
# The ratio is checked only for data larger than our own largest batch. A higher ratio is then
# treated as a decompression bomb.
DECOMPRESSION_RATIO_FREE_BYTES: Final = BATCH_BYTES_MAX
DECOMPRESSION_RATIO_MAX: Final = 1_000

STRING_BYTES_MAX: Final = 32_767
MAP_ENTRIES_MAX: Final = 65_535
TOPIC_NAME_BYTES_MAX: Final = 63
NESTING_MAX: Final = 16

PENDING_REQUESTS_MAX: Final = 128
STREAMS_PER_CONNECTION_MAX: Final = 256
CONNECTIONS_MAX: Final = 2_048
# A client has one connection to the SC, one to the SPU, and one for each consumer. So a few
# hundred small programs can run on one machine.
CONNECTIONS_PER_ADDRESS_MAX: Final = 1_024
# How many connections above the limits get an error response at a time. Others are closed
# without a response.
REFUSALS_MAX: Final = 256
CONNECTION_BYTES_IN_FLIGHT_MAX: Final = 160 * MIB
BYTES_IN_FLIGHT_MAX: Final = 512 * MIB
HANDSHAKE_S_MAX: Final = 5.0
FRAME_S_MAX: Final = 30.0
IDLE_S_MAX: Final = 600.0

TOPICS_MAX: Final = 1_000
PARTITIONS_MAX: Final = 10_000
SMARTMODULES_MAX: Final = 1_000
# The response to a List request holds all SmartModules.
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

# The default maximum of one fetch, as in the stock client.
FETCH_BYTES_DEFAULT: Final = 1_048_890
# The broker returns no more than this per partition and per response, even if a client
# requests more.
FETCH_BYTES_MAX: Final = 16 * MIB
FETCH_RESPONSE_BYTES_MAX: Final = 64 * MIB
BATCH_BYTES_DEFAULT: Final = 16_384
REQUEST_BYTES_DEFAULT: Final = 1_048_576

CHUNK_RECORDS_MAX: Final = 4_096
CHUNK_BYTES_MAX: Final = 1 * MIB
# The same for records that are columns, of which each chunk has a fixed cost.
COLUMNS_RECORDS_MAX: Final = 65_536
COLUMNS_BYTES_MAX: Final = 8 * MIB
# How many records one stage keeps that wait for a call or its turn, and their size; and how many
# that wait for a retry. When there are more, the job reads no further until some are done.
QUEUED_RECORDS_MAX: Final = 4_096
QUEUED_BYTES_MAX: Final = 64 * MIB
PARKED_RECORDS_MAX: Final = 10_000
# How many bytes a generator source may read ahead of the job.
FEED_BYTES_MAX: Final = 8 * MIB

# Python handles a signal that comes just before a wait of the main thread only after that wait, so
# a longer one is divided.
SIGNAL_WAIT_S_MAX: Final = 0.5

# Relations between the bounds, checked at import.
assert FRAME_BYTES_MIN < BATCH_BYTES_MAX < BATCH_BYTES_HARD_MAX < FRAME_BYTES_MAX
assert FRAME_BYTES_MAX < CONNECTION_BYTES_IN_FLIGHT_MAX < BYTES_IN_FLIGHT_MAX
assert SMARTMODULES_BYTES_MAX + SMARTMODULES_MAX * STRING_BYTES_MAX < FRAME_BYTES_MAX
assert REFUSALS_MAX < CONNECTIONS_PER_ADDRESS_MAX <= CONNECTIONS_MAX
assert FRAME_BYTES_MAX < 2**31, "the length field is an i32"
