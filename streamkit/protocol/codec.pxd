cimport cython
from libc.stdint cimport int64_t, uint64_t

# Module constants as C numbers: as Python objects they would be boxed in every loop.
cdef uint64_t _MASK
cdef int _TOP_BIT
cdef int64_t _TIME_MAX
cdef Py_ssize_t RECORD_BYTES_MIN
cdef Py_ssize_t _COUNT_BYTES

cdef extern from *:
    """
    #include <string.h>
    static inline void copy_bytes(unsigned char *out, Py_ssize_t at, PyObject *value, Py_ssize_t size) {
        memcpy(out + at, PyBytes_AS_STRING(value), (size_t)size);
    }
    """
    void copy_bytes(unsigned char *out, Py_ssize_t at, object value, Py_ssize_t size)

@cython.final
cdef class Cursor:
    cdef bytes keep
    cdef const unsigned char *p
    cdef Py_ssize_t at
    cdef Py_ssize_t end

    @cython.locals(at=Py_ssize_t)
    cdef int byte(self) except -1
    @cython.locals(at=Py_ssize_t, end=Py_ssize_t, byte="uint64_t", bits="uint64_t", shift=int, half="int64_t")
    cdef int64_t varint(self) except? -1
    @cython.locals(before=Py_ssize_t, start=Py_ssize_t, length="int64_t")
    cdef Py_ssize_t skip(self) except -1

@cython.locals(count=Py_ssize_t)
cpdef Py_ssize_t read_record_count(bytes data, Py_ssize_t at, Py_ssize_t end) except -1

@cython.locals(
    count=Py_ssize_t, row=Py_ssize_t, values=list, keys=list, stamps=list, cursor=Cursor,
    p="const unsigned char *", has_time=bint, fits=bint, delta="int64_t", last_delta="int64_t",
    start=Py_ssize_t, record_end=Py_ssize_t, flag=int,
)
cpdef tuple decode_records(bytes data, Py_ssize_t at, Py_ssize_t end, int64_t first_timestamp_ms)

@cython.locals(
    count=Py_ssize_t, row=Py_ssize_t, cursor=Cursor, start=Py_ssize_t, record_end=Py_ssize_t, flag=int,
)
cpdef Py_ssize_t check_records(bytes data, Py_ssize_t at, Py_ssize_t end) except -1

@cython.locals(
    count=Py_ssize_t, row=Py_ssize_t, deltas=list, cursor=Cursor, start=Py_ssize_t, record_end=Py_ssize_t,
)
cpdef list read_offset_deltas(bytes data, Py_ssize_t at, Py_ssize_t end)

@cython.locals(bits="uint64_t", size=Py_ssize_t)
cdef Py_ssize_t varint_bytes(int64_t value) noexcept

@cython.locals(bits="uint64_t")
cdef Py_ssize_t put_varint(unsigned char *out, Py_ssize_t at, int64_t value) noexcept

@cython.locals(size=Py_ssize_t, total=Py_ssize_t)
cdef Py_ssize_t body_bytes(Py_ssize_t row, int64_t delta_ms, bytes key, bytes value) except -1

@cython.locals(size=Py_ssize_t)
cpdef Py_ssize_t record_bytes(Py_ssize_t row, int64_t delta_ms, bytes key, bytes value) except -1

@cython.locals(
    total=Py_ssize_t, row=Py_ssize_t, stop=Py_ssize_t, size=Py_ssize_t, delta="int64_t", first="int64_t", stamp="int64_t", key=bytes, value=bytes,
)
cpdef tuple fit_rows(list values, list keys, list stamps, Py_ssize_t start, Py_ssize_t budget_bytes, Py_ssize_t rows_max)

@cython.locals(row=Py_ssize_t, size=Py_ssize_t, largest=Py_ssize_t, time_ms="int64_t")
cpdef Py_ssize_t scan_columns(list values, list keys, list stamps, int64_t lowest_ms) except? -2

@cython.locals(row=Py_ssize_t, stamp="int64_t", highest="int64_t")
cpdef int64_t highest_of(list stamps, Py_ssize_t start, Py_ssize_t stop) except? -2

@cython.locals(
    count=Py_ssize_t, row=Py_ssize_t, at=Py_ssize_t, size=Py_ssize_t, delta="int64_t", first="int64_t", stamp="int64_t",
    result=bytearray, out="unsigned char *", value=bytes, key=bytes,
)
cpdef bytes encode_records(list values, list keys, list stamps, Py_ssize_t start, Py_ssize_t stop, Py_ssize_t size_bytes)

@cython.locals(
    size=Py_ssize_t, p="const unsigned char *", v0="uint64_t", v1="uint64_t",
    v2="uint64_t", v3="uint64_t", word="uint64_t", block=Py_ssize_t,
    blocks=Py_ssize_t, left=Py_ssize_t, index=Py_ssize_t, rounds=int,
)
cpdef uint64_t siphash(bytes key) except? 77

cdef inline uint64_t hash_key(bytes key) except? 77:
    return siphash(key)

cdef (uint64_t, uint64_t, uint64_t, uint64_t) sip_round(
    uint64_t v0, uint64_t v1, uint64_t v2, uint64_t v3
) noexcept

@cython.locals(count=Py_ssize_t, row=Py_ssize_t, chosen=list, where=Py_ssize_t, step="uint64_t")
cpdef tuple partition_rows(keys, Py_ssize_t partitions, uint64_t turn)
