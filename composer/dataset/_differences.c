/* Undo the differences of packing `delta`: see differences.py, which does the same where this was not built.
 *
 * Python's stable ABI from 3.11 on; plain C, and SSSE3 where the processor has it.
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include <stdint.h>
#include <string.h>

#define MOST_WIDTH 4096 /* px, a tile's: array_reader.py refuses larger ones */
#define LANES 16

/* Sum along one row, x from 0 to `right`, the three planes that lie `stride` bytes apart; write RGB from `left` on. */
static void sum_row(const uint8_t *planes, Py_ssize_t stride, Py_ssize_t left, Py_ssize_t right, uint8_t *out)
{
    const uint8_t *greens = planes, *reds = planes + stride, *blues = planes + 2 * stride;
    uint8_t green = 0, red = 0, blue = 0;
    for (Py_ssize_t x = 0; x < right; x++) {
        green += greens[x];
        red += reds[x];
        blue += blues[x];
        if (x >= left) {
            *out++ = red + green;
            *out++ = green;
            *out++ = blue + green;
        }
    }
}

#if defined(__x86_64__) && defined(__GNUC__)
#include <tmmintrin.h>
#define SSSE3 __attribute__((target("ssse3")))

SSSE3 static inline __m128i sum_lanes(__m128i lanes, __m128i before)
{
    lanes = _mm_add_epi8(lanes, _mm_slli_si128(lanes, 1));
    lanes = _mm_add_epi8(lanes, _mm_slli_si128(lanes, 2));
    lanes = _mm_add_epi8(lanes, _mm_slli_si128(lanes, 4));
    lanes = _mm_add_epi8(lanes, _mm_slli_si128(lanes, 8));
    return _mm_add_epi8(lanes, before);
}

/* Where each of 48 bytes of RGB comes from in 16 lanes of its channel; -1: from another channel. */
static int8_t lane_of[3][3][LANES];

static void fill_lanes(void)
{
    memset(lane_of, -1, sizeof lane_of);
    for (int i = 0; i < 3 * LANES; i++)
        lane_of[i % 3][i / LANES][i % LANES] = (int8_t)(i / 3);
}

SSSE3 static inline void interleave(__m128i red, __m128i green, __m128i blue, uint8_t *out)
{
    for (int part = 0; part < 3; part++) {
        __m128i r = _mm_shuffle_epi8(red, _mm_loadu_si128((const __m128i *)lane_of[0][part]));
        __m128i g = _mm_shuffle_epi8(green, _mm_loadu_si128((const __m128i *)lane_of[1][part]));
        __m128i b = _mm_shuffle_epi8(blue, _mm_loadu_si128((const __m128i *)lane_of[2][part]));
        _mm_storeu_si128((__m128i *)(out + LANES * part), _mm_or_si128(_mm_or_si128(r, g), b));
    }
}

/* As `sum_row`, sixteen pixels at once; reads up to 15 bytes beyond `right`. */
SSSE3 static void sum_row_ssse3(
    const uint8_t *planes, Py_ssize_t stride, Py_ssize_t left, Py_ssize_t right, uint8_t *out)
{
    const __m128i last = _mm_set1_epi8(LANES - 1);
    __m128i green = _mm_setzero_si128(), red = green, blue = green;
    for (Py_ssize_t x = 0; x < right; x += LANES) {
        const uint8_t *at = planes + x;
        green = sum_lanes(_mm_loadu_si128((const __m128i *)at), _mm_shuffle_epi8(green, last));
        red = sum_lanes(_mm_loadu_si128((const __m128i *)(at + stride)), _mm_shuffle_epi8(red, last));
        blue = sum_lanes(_mm_loadu_si128((const __m128i *)(at + 2 * stride)), _mm_shuffle_epi8(blue, last));
        if (x + LANES <= left)
            continue;
        __m128i r = _mm_add_epi8(red, green), b = _mm_add_epi8(blue, green);
        if (x >= left && x + LANES <= right) {
            interleave(r, green, b, out + 3 * (x - left));
        } else {
            uint8_t pixels[3 * LANES];
            Py_ssize_t first = x < left ? left - x : 0, end = right - x < LANES ? right - x : LANES;
            interleave(r, green, b, pixels);
            memcpy(out + 3 * (x + first - left), pixels + 3 * first, (size_t)(3 * (end - first)));
        }
    }
}
#endif

typedef void (*RowSum)(const uint8_t *, Py_ssize_t, Py_ssize_t, Py_ssize_t, uint8_t *);
static RowSum best_row_sum = sum_row;

static void sum_planes(
    const uint8_t *stored, Py_ssize_t height, Py_ssize_t width, Py_ssize_t top, Py_ssize_t left, const Py_buffer *out)
{
    uint8_t columns[3 * MOST_WIDTH + LANES]; /* the sums down to the row */
    Py_ssize_t bottom = top + out->shape[0], right = left + out->shape[1];
    memset(columns, 0, (size_t)(3 * width + LANES));
    for (Py_ssize_t y = 0; y < bottom; y++) {
        for (int plane = 0; plane < 3; plane++) {
            const uint8_t *row = stored + (plane * height + y) * width;
            uint8_t *sums = columns + plane * width;
            for (Py_ssize_t x = 0; x < right; x++)
                sums[x] += row[x];
        }
        if (y >= top)
            best_row_sum(columns, width, left, right, (uint8_t *)out->buf + (y - top) * out->strides[0]);
    }
}

static const char *find_fault(
    const Py_buffer *stored, Py_ssize_t height, Py_ssize_t width, Py_ssize_t top, Py_ssize_t left, const Py_buffer *out)
{
    if (height < 1 || width < 1 || width > MOST_WIDTH || height > MOST_WIDTH || stored->len != 3 * height * width)
        return "the planes are not of the tile's size";
    if (out->ndim != 3 || out->itemsize != 1 || out->shape[2] != 3 || out->strides[2] != 1 || out->strides[1] != 3)
        return "the pixels do not lie row by row, three bytes each";
    if (top < 0 || left < 0 || out->shape[0] > height - top || out->shape[1] > width - left)
        return "the part is not inside the tile";
    return NULL;
}

static PyObject *sum_tile(PyObject *module, PyObject *arguments)
{
    Py_buffer stored, out;
    Py_ssize_t height, width, top, left;
    PyObject *pixels;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*nnnnO", &stored, &height, &width, &top, &left, &pixels))
        return NULL;
    if (PyObject_GetBuffer(pixels, &out, PyBUF_STRIDES | PyBUF_WRITABLE)) {
        PyBuffer_Release(&stored);
        return NULL;
    }
    const char *fault = find_fault(&stored, height, width, top, left, &out);
    if (fault) {
        PyErr_SetString(PyExc_ValueError, fault);
    } else {
        Py_BEGIN_ALLOW_THREADS
        sum_planes(stored.buf, height, width, top, left, &out);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&out);
    PyBuffer_Release(&stored);
    if (fault)
        return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"sum_tile", sum_tile, METH_VARARGS,
     "sum_tile(stored, tile_height, tile_width, top, left, out, /)\n--\n\n"
     "Write the part of a tile that begins at (top, left) into `out`, (h, w, 3) uint8 RGB."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_differences", NULL, 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__differences(void)
{
#ifdef SSSE3
    if (__builtin_cpu_supports("ssse3")) {
        fill_lanes();
        best_row_sum = sum_row_ssse3;
    }
#endif
    return PyModuleDef_Init(&definition);
}
