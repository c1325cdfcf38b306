/* 3x3 convolutions by Winograd's minimal filtering F(4x4, 3x3), in float32.
 *
 * A. Lavin, S. Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016. Four by four outputs take 36
 * multiplications in place of 144:
 *
 *     Y = A' [ (G g G') . (B' d B) ] A
 *
 * with a kernel g of 3x3, a tile d of 6x6 inputs that overlaps its neighbours by two, and outputs Y of 4x4. Of many
 * tiles and channels the product in the middle is 36 products of matrices. Tiles are taken a block at a time, so that
 * all that belongs to a block stays in the cache.
 *
 * Maps are channels-last: rows, columns, channels. Around them there are zeros, one wide; the stride is 1. Numbers of
 * channels are multiples of 16. Whatever the number of threads, each sum has one order.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef __AVX512F__
#define LANES 16
#elif defined __AVX__
#define LANES 8
#else
#define LANES 4
#endif
#define TILE 6 /* inputs a side */
#define OUT 4  /* outputs a side */
#define POINTS (TILE * TILE)
#define BLOCK 24 /* tiles: their channels fit into the second cache, and every number of rows below divides it */

/* Tiles are summed up to a gradient of the weights in up to so many parts, each by one thread; but in no more than have
 * TILES_OF_PART, as the sums of a part are large. Neither depends on the number of threads. */
#define PARTS 8
#define TILES_OF_PART 64

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef float loose_vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

static inline vec load(const float *p) { return *(const loose_vec *)p; }
static inline void store(float *p, vec v) { *(loose_vec *)p = v; }

typedef struct {
    int64_t pictures;
    int height, width, in, out;
} shape;

/* NULL where there is too little. */
static float *memory(int64_t floats) { return aligned_alloc(64, (floats * sizeof(float) + 63) / 64 * 64); }

/* ---- the four small matrices, applied to a column -------------------------------------------------------------- */

static inline void times_Bt(const vec d[TILE], vec v[TILE]) {
    vec a = d[4] - 4.0f * d[2], b = d[3] - 4.0f * d[1], c = d[4] - d[2], e = 2.0f * (d[3] - d[1]);
    v[0] = 4.0f * d[0] - 5.0f * d[2] + d[4];
    v[1] = a + b;
    v[2] = a - b;
    v[3] = c + e;
    v[4] = c - e;
    v[5] = 4.0f * d[1] - 5.0f * d[3] + d[5];
}

static inline void times_At(const vec m[TILE], vec y[OUT]) {
    vec a = m[1] + m[2], b = m[1] - m[2], c = m[3] + m[4], d = m[3] - m[4];
    y[0] = m[0] + a + c;
    y[1] = b + 2.0f * d;
    y[2] = a + 4.0f * c;
    y[3] = b + 8.0f * d + m[5];
}

static inline void times_A(const vec y[OUT], vec m[TILE]) {
    vec a = y[0] + y[2], b = y[1] + y[3], c = y[0] + 4.0f * y[2], d = 2.0f * y[1] + 8.0f * y[3];
    m[0] = y[0];
    m[1] = a + b;
    m[2] = a - b;
    m[3] = c + d;
    m[4] = c - d;
    m[5] = y[3];
}

static inline void times_G(const vec g[3], vec u[TILE]) {
    vec a = (-1.0f / 6) * (g[0] + g[2]), b = (1.0f / 6) * g[1], c = (1.0f / 24) * g[0] + (1.0f / 6) * g[2];
    vec d = (1.0f / 12) * g[1];
    u[0] = 0.25f * g[0];
    u[1] = a - b;
    u[2] = a + b;
    u[3] = c + d;
    u[4] = c - d;
    u[5] = g[2];
}

static inline void times_Gt(const vec u[TILE], vec g[3]) {
    vec a = u[1] + u[2], b = u[2] - u[1], c = u[3] + u[4], d = u[3] - u[4];
    g[0] = 0.25f * u[0] - (1.0f / 6) * a + (1.0f / 24) * c;
    g[1] = (1.0f / 6) * b + (1.0f / 12) * d;
    g[2] = (1.0f / 6) * (c - a) + u[5];
}

/* ---- tiles ------------------------------------------------------------------------------------------------------ */

typedef struct {
    int64_t picture;
    int row, column; /* of its first output */
} place;

static inline int64_t tiles_of(shape s) {
    return s.pictures * ((s.height + OUT - 1) / OUT) * ((s.width + OUT - 1) / OUT);
}

static inline place place_of(shape s, int64_t tile) {
    int down = (s.height + OUT - 1) / OUT, across = (s.width + OUT - 1) / OUT;
    return (place){tile / across / down, tile / across % down * OUT, tile % across * OUT};
}

static inline const float *pixel(const float *maps, shape s, int channels, place p, int i, int j, const float *zeros) {
    int row = p.row + i, column = p.column + j;
    if (row < 0 || row >= s.height || column < 0 || column >= s.width) return zeros;
    return maps + ((p.picture * s.height + row) * s.width + column) * channels;
}

/* B' d B of the inputs around one tile, point by point `apart`. */
static void transform_inputs(const float *x, shape s, place p, const float *zeros, float *V, int64_t apart) {
    const float *d[TILE][TILE];
    for (int i = 0; i < TILE; i++)
        for (int j = 0; j < TILE; j++) d[i][j] = pixel(x, s, s.in, p, i - 1, j - 1, zeros);
    for (int c = 0; c < s.in; c += LANES) {
        vec half[TILE][TILE];
        for (int j = 0; j < TILE; j++) {
            vec column[TILE], done[TILE];
            for (int i = 0; i < TILE; i++) column[i] = load(d[i][j] + c);
            times_Bt(column, done);
            for (int i = 0; i < TILE; i++) half[i][j] = done[i];
        }
        for (int i = 0; i < TILE; i++) {
            vec done[TILE];
            times_Bt(half[i], done);
            for (int j = 0; j < TILE; j++) store(V + (i * TILE + j) * apart + c, done[j]);
        }
    }
}

/* A dy A' of the gradients of one tile's outputs. */
static void transform_gradients(const float *dy, shape s, place p, const float *zeros, float *M, int64_t apart) {
    const float *d[OUT][OUT];
    for (int i = 0; i < OUT; i++)
        for (int j = 0; j < OUT; j++) d[i][j] = pixel(dy, s, s.out, p, i, j, zeros);
    for (int c = 0; c < s.out; c += LANES) {
        vec half[TILE][OUT];
        for (int j = 0; j < OUT; j++) {
            vec column[OUT], done[TILE];
            for (int i = 0; i < OUT; i++) column[i] = load(d[i][j] + c);
            times_A(column, done);
            for (int i = 0; i < TILE; i++) half[i][j] = done[i];
        }
        for (int i = 0; i < TILE; i++) {
            vec done[TILE];
            times_A(half[i], done);
            for (int j = 0; j < TILE; j++) store(M + (i * TILE + j) * apart + c, done[j]);
        }
    }
}

/* A' m A, the outputs of one tile, as far as they lie in the map. */
static void outputs(const float *M, int64_t apart, const float *bias, float *y, shape s, place p) {
    for (int c = 0; c < s.out; c += LANES) {
        vec half[OUT][TILE], add = bias ? load(bias + c) : (vec){};
        for (int j = 0; j < TILE; j++) {
            vec column[TILE], done[OUT];
            for (int i = 0; i < TILE; i++) column[i] = load(M + (i * TILE + j) * apart + c);
            times_At(column, done);
            for (int i = 0; i < OUT; i++) half[i][j] = done[i];
        }
        for (int i = 0; i < OUT && p.row + i < s.height; i++) {
            vec done[OUT];
            times_At(half[i], done);
            float *row = y + ((p.picture * s.height + p.row + i) * s.width + p.column) * s.out + c;
            for (int j = 0; j < OUT && p.column + j < s.width; j++) store(row + (int64_t)j * s.out, done[j] + add);
        }
    }
}

/* ---- products of matrices --------------------------------------------------------------------------------------- */

/* `rows` x (columns * LANES) of C = A B, or of C + A B; A's element (i, k) is A[i * down + k * on]. */
static inline __attribute__((always_inline)) void piece(
    const int rows, const int columns, const float *restrict A, int down, int on, const float *restrict B,
    float *restrict C, int width, int depth, int more) {
    vec sum[8][4];
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < columns; j++) sum[i][j] = more ? load(C + i * width + j * LANES) : (vec){};
    for (int k = 0; k < depth; k++) {
        vec b[4];
        for (int j = 0; j < columns; j++) b[j] = load(B + (int64_t)k * width + j * LANES);
        for (int i = 0; i < rows; i++)
            for (int j = 0; j < columns; j++) sum[i][j] += A[(int64_t)i * down + (int64_t)k * on] * b[j];
    }
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < columns; j++) store(C + i * width + j * LANES, sum[i][j]);
}

/* C = A B, or C += A B, of height x depth and depth x width. The width is a multiple of 16, the height of 16 or of
 * BLOCK. The sums of a piece stay in registers, and are so many that none waits for itself. */
static void product(const float *A, int down, int on, const float *B, float *C, int height, int width, int depth,
                    int more) {
#define PIECES(rows, columns)                                                                                          \
    for (; width - n >= columns * LANES; n += columns * LANES)                                                         \
        for (int m = 0; m < height; m += rows)                                                                         \
            piece(rows, columns, A + (int64_t)m * down, down, on, B + n, C + (int64_t)m * width + n, width, depth, more)
    int n = 0;
#if LANES == 16
    if (height % 6) {
        PIECES(4, 4);
    } else {
        PIECES(6, 4);
    }
    PIECES(8, 2);
    PIECES(8, 1);
#else
    if (height % 6) {
        PIECES(4, 2);
    } else {
        PIECES(6, 2);
    }
#endif
}

/* ---- the three convolutions ------------------------------------------------------------------------------------- */

/* U = G g G' of all kernels, by point, input, output. The kernel of (input i, output o) begins at w[i * per_in +
 * o * per_out]; its rows and columns are per_row and per_column apart. All may be negative: so the convolution that
 * gives the gradient of the inputs has the same kernels turned by half a turn, and inputs and outputs exchanged. */
void transform_weights(const float *w, int64_t per_in, int64_t per_out, int64_t per_row, int64_t per_column, int in,
                       int out, float *U, int threads) {
#pragma omp parallel for num_threads(threads)
    for (int i = 0; i < in; i++)
        for (int o = 0; o < out; o += LANES) {
            vec half[TILE][3];
            for (int s = 0; s < 3; s++) {
                vec column[3], done[TILE];
                for (int r = 0; r < 3; r++)
                    for (int l = 0; l < LANES; l++)
                        column[r][l] = w[i * per_in + (o + l) * per_out + r * per_row + s * per_column];
                times_G(column, done);
                for (int r = 0; r < TILE; r++) half[r][s] = done[r];
            }
            for (int r = 0; r < TILE; r++) {
                vec done[TILE];
                times_G(half[r], done);
                for (int s = 0; s < TILE; s++) store(U + ((int64_t)(r * TILE + s) * in + i) * out + o, done[s]);
            }
        }
}

/* y = convolution of x with the kernels of U, and a bias unless it is NULL. Returns 0, or 1 where there is no memory. */
int convolve(const float *x, const float *U, const float *bias, float *y, int64_t pictures, int height, int width,
             int in, int out, int threads) {
    shape s = {pictures, height, width, in, out};
    int64_t tiles = tiles_of(s), of_in = (int64_t)BLOCK * in, of_out = (int64_t)BLOCK * out;
    int failed = 0;
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        float *zeros = memory(in + POINTS * (of_in + of_out)), *V = zeros + in, *M = V + POINTS * of_in;
        failed = !zeros;
        if (!failed) memset(zeros, 0, in * sizeof(float));
#pragma omp for schedule(dynamic)
        for (int64_t first = 0; first < tiles; first += BLOCK) {
            int count = tiles - first < BLOCK ? tiles - first : BLOCK;
            if (failed) continue; /* of a block that is not full, the products are made of whatever lies there */
            for (int t = 0; t < count; t++)
                transform_inputs(x, s, place_of(s, first + t), zeros, V + (int64_t)t * in, of_in);
            for (int e = 0; e < POINTS; e++)
                product(V + e * of_in, in, 1, U + (int64_t)e * in * out, M + e * of_out, BLOCK, out, in, 0);
            for (int t = 0; t < count; t++)
                outputs(M + (int64_t)t * out, of_out, bias, y, s, place_of(s, first + t));
        }
        free(zeros);
    }
    return failed;
}

/* The gradient of the weights, where x were the inputs and dy is the gradient of the outputs; laid out as in
 * `transform_weights`. Returns 0, or 1 where there is no memory. */
int weight_gradient(const float *x, const float *dy, float *dw, int64_t per_in, int64_t per_out, int64_t per_row,
                    int64_t per_column, int64_t pictures, int height, int width, int in, int out, int threads) {
    shape s = {pictures, height, width, in, out};
    int64_t tiles = tiles_of(s), of_in = (int64_t)BLOCK * in, of_out = (int64_t)BLOCK * out, whole = (int64_t)in * out;
    int parts = tiles < 2 * TILES_OF_PART ? 1 : tiles < PARTS * TILES_OF_PART ? tiles / TILES_OF_PART : PARTS;
    float *dU = memory(parts * POINTS * whole);
    int failed = !dU;
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        float *zeros = memory(in + out + POINTS * (of_in + of_out)), *V = zeros + in + out, *M = V + POINTS * of_in;
        failed = !zeros || !dU;
        if (zeros) memset(zeros, 0, (in + out) * sizeof(float));
#pragma omp for schedule(dynamic)
        for (int part = 0; part < parts; part++) {
            int64_t first = tiles * part / parts, end = tiles * (part + 1) / parts;
            if (failed) continue;
            float *here = dU + part * POINTS * whole;
            if (first == end) memset(here, 0, POINTS * whole * sizeof(float));
            for (int64_t at = first; at < end; at += BLOCK) {
                int count = end - at < BLOCK ? end - at : BLOCK;
                for (int t = 0; t < count; t++) {
                    transform_inputs(x, s, place_of(s, at + t), zeros, V + (int64_t)t * in, of_in);
                    transform_gradients(dy, s, place_of(s, at + t), zeros, M + (int64_t)t * out, of_out);
                }
                for (int e = 0; e < POINTS; e++)
                    product(V + e * of_in, 1, in, M + e * of_out, here + e * whole, in, out, count, at > first);
            }
        }
        free(zeros);
#pragma omp for
        for (int i = 0; i < in; i++)
            for (int o = 0; o < out; o += LANES) {
                if (failed) continue;
                vec half[3][TILE];
                for (int c = 0; c < TILE; c++) {
                    vec column[TILE], done[3];
                    for (int r = 0; r < TILE; r++) {
                        const float *sum = dU + ((r * TILE + c) * (int64_t)in + i) * out + o;
                        column[r] = load(sum);
                        for (int part = 1; part < parts; part++) column[r] += load(sum + part * POINTS * whole);
                    }
                    times_Gt(column, done);
                    for (int r = 0; r < 3; r++) half[r][c] = done[r];
                }
                for (int r = 0; r < 3; r++) {
                    vec done[3];
                    times_Gt(half[r], done);
                    for (int c = 0; c < 3; c++)
                        for (int l = 0; l < LANES; l++)
                            dw[i * per_in + (o + l) * per_out + r * per_row + c * per_column] = done[c][l];
                }
            }
    }
    free(dU);
    return failed;
}
