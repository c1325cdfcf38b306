/* LeNet-5, one pattern at a time: the same arithmetic as model.py and
 * sdlm.py, written out so that one update takes tens of microseconds.
 *
 * Every sum is taken in one fixed order, over vectors of eight floats whose
 * lanes are added in a fixed order, and the compiler is told not to fuse a product into
 * a sum (-ffp-contract=off). So the weights do not depend on the width of the
 * processor's vectors.
 *
 * Feature maps lie in rows of sixteen or thirty-two floats. The columns beyond
 * the map are scratch in forward maps and zero in deltas, where they must not
 * add anything.
 */
#include <stdint.h>
#include <string.h>

#define LANES 8
typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES)));
typedef float quad __attribute__((vector_size(16)));
typedef float loose_vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

static inline vec load(const float *p) { return *(const loose_vec *)p; }
static inline void store(float *p, vec v) { *(loose_vec *)p = v; }

/* The bits of `a` where `mask` is set, those of `b` elsewhere. */
static inline vec select(ivec mask, vec a, vec b) { return (vec)(((ivec)a & mask) | ((ivec)b & ~mask)); }

static inline float lane_sum(vec v) {
    union { vec whole; quad part[LANES / 4]; } u = {v};
    quad s = u.part[0];
    for (int i = 1; i < LANES / 4; i++) s += u.part[i];
    return (s[0] + s[2]) + (s[1] + s[3]);
}

/* exp(z) for z in [-87, 88], to about 1e-7 of its value: z = k ln 2 + r, and a
 * polynomial in r. */
static inline vec vec_exp(vec z) {
    const vec magic = (vec){} + 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
    vec k = (z * 1.44269504f + magic) - magic;
    vec r = (z - k * 0.693145752f) - k * 1.42860677e-6f;
    vec p = (vec){} + 1.0f / 5040;
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    ivec bits = (__builtin_convertvector(k, ivec) + 127) << 23;
    return p * (vec)bits;
}

static inline vec clamp(vec z, float limit) {
    vec hi = (vec){} + limit;
    z = select(z < hi, z, hi);
    return select(z > -hi, z, -hi);
}

#define AMPLITUDE 1.7159f
#define SLOPE 0.666666667f

/* The squashing function 1.7159 tanh(2a/3) (Appendix A), as 1 - 2/(1 + e^2z). */
static inline vec squash(vec a) {
    vec z = clamp(a * (2.0f * SLOPE), 30.0f);
    return AMPLITUDE - (2.0f * AMPLITUDE) / (vec_exp(z) + 1.0f);
}

/* Its derivative, from its value. */
static inline vec squash_slope(vec x) { return SLOPE * AMPLITUDE - (SLOPE / AMPLITUDE) * (x * x); }

/* ---- the network ------------------------------------------------------- */

enum { MAPS1 = 6, MAPS3 = 16, KERNELS3 = 60, UNITS5 = 120, UNITS6 = 84, CLASSES = 10 };
enum { SIDE0 = 32, SIDE1 = 28, SIDE2 = 14, SIDE3 = 10, SIDE4 = 5, INPUTS5 = MAPS3 * SIDE4 * SIDE4 };
enum { SLACK = 32 }; /* room for vectors that start in the last row */

/* The 60,000 trainable parameters, in the order of model.py. */
typedef struct {
    float c1[MAPS1][5][5], c1_bias[MAPS1];
    float s2[MAPS1], s2_bias[MAPS1];
    float c3[KERNELS3][5][5], c3_bias[MAPS3];
    float s4[MAPS3], s4_bias[MAPS3];
    float c5[UNITS5][INPUTS5], c5_bias[UNITS5];
    float f6[UNITS6][UNITS5], f6_bias[UNITS6];
} Parameters;
_Static_assert(sizeof(Parameters) == 60000 * sizeof(float), "the paper's 60,000 parameters");

/* Table I: the S2 maps that feed each C3 map. */
static const int8_t TABLE_1[MAPS3][MAPS1 + 1] = {
    {0, 1, 2, -1}, {1, 2, 3, -1}, {2, 3, 4, -1}, {3, 4, 5, -1}, {0, 4, 5, -1}, {0, 1, 5, -1},
    {0, 1, 2, 3, -1}, {1, 2, 3, 4, -1}, {2, 3, 4, 5, -1}, {0, 3, 4, 5, -1}, {0, 1, 4, 5, -1},
    {0, 1, 2, 5, -1}, {0, 1, 3, 4, -1}, {1, 2, 4, 5, -1}, {0, 2, 3, 5, -1}, {0, 1, 2, 3, 4, 5, -1}};

/* What a forward pass leaves behind: the input of every layer, and, where a
 * layer is squashed, the slope at each unit. */
typedef struct {
    float x0[SIDE0 * SIDE0 + SLACK];
    float x1[MAPS1][SIDE1][32], slope1[MAPS1][SIDE1][32];
    float sum1[MAPS1][SIDE2][16]; /* sums over the 2x2 windows */
    float x2[MAPS1][SIDE2][16 + 8], slope2[MAPS1][SIDE2][16];
    float x3[MAPS3][SIDE3][16], slope3[MAPS3][SIDE3][16];
    float sum3[MAPS3][SIDE4][SIDE4];
    float x4[INPUTS5], slope4[INPUTS5];
    float x5[128], slope5[128];
    float x6[96], slope6[96];
    float y[CLASSES]; /* penalties of the RBF units, eq. 7 */
} State;

typedef struct {
    int squash_convolutions; /* 0: no squashing after C1, C3 and C5 */
    int subsample_mean;      /* 1: the window's mean, 0: its sum */
    int shared_coefficient;  /* second derivatives: 1: a coefficient has four connections to each unit, 0: one, from the window */
    int quadratic_top;       /* second derivatives start from eq. 8's, 2, whatever the loss */
    int discriminative;      /* 1: eq. 9, 0: eq. 8 */
    float j;                 /* the constant of eq. 9 */
} Options;

static inline void activate(int squashed, vec a, float *x, float *slope) {
    vec value = squashed ? squash(a) : a;
    store(x, value);
    store(slope, squashed ? squash_slope(value) : (vec){} + 1.0f);
}

static float dot(const float *a, const float *b, int n) {
    vec sum = {};
    int i = 0;
    for (; i + LANES <= n; i += LANES) sum += load(a + i) * load(b + i);
    float rest = lane_sum(sum);
    for (; i < n; i++) rest += a[i] * b[i];
    return rest;
}

static void activate_units(int squashed, const float *a, int n, float *x, float *slope) {
    for (int i = 0; i < n; i += LANES) activate(squashed, load(a + i), x + i, slope + i);
}

/* The four cells of each 2x2 window, added, for a row of `n` windows. */
static inline void window_sums(const float *upper, const float *lower, float *sums, int n) {
    for (int c = 0; c < n; c++)
        sums[c] = (upper[2 * c] + upper[2 * c + 1]) + (lower[2 * c] + lower[2 * c + 1]);
}

static void forward(const Parameters *w, const Options *o, const float (*centres)[UNITS6],
                    const float *pattern, State *s) {
    const float share = o->subsample_mean ? 0.25f : 1.0f;
    memcpy(s->x0, pattern, SIDE0 * SIDE0 * sizeof(float));

    for (int r = 0; r < SIDE1; r++) { /* C1 */
        for (int c = 0; c < 32; c += 2 * LANES) {
            vec a[MAPS1][2];
            for (int m = 0; m < MAPS1; m++) a[m][0] = a[m][1] = (vec){} + w->c1_bias[m];
            for (int i = 0; i < 5; i++)
                for (int j = 0; j < 5; j++) {
                    const float *x = s->x0 + (r + i) * SIDE0 + c + j;
                    vec left = load(x), right = load(x + LANES);
                    for (int m = 0; m < MAPS1; m++) {
                        a[m][0] += w->c1[m][i][j] * left;
                        a[m][1] += w->c1[m][i][j] * right;
                    }
                }
            for (int m = 0; m < MAPS1; m++)
                for (int h = 0; h < 2; h++)
                    activate(o->squash_convolutions, a[m][h], &s->x1[m][r][c + h * LANES], &s->slope1[m][r][c + h * LANES]);
        }
    }

    for (int m = 0; m < MAPS1; m++) /* S2 */
        for (int r = 0; r < SIDE2; r++) {
            window_sums(s->x1[m][2 * r], s->x1[m][2 * r + 1], s->sum1[m][r], SIDE2);
            for (int c = 0; c < 16; c += LANES)
                activate(1, (w->s2[m] * share) * load(&s->sum1[m][r][c]) + w->s2_bias[m], &s->x2[m][r][c], &s->slope2[m][r][c]);
        }

    for (int c = 0; c < 16; c += LANES)
        for (int m = 0, k = 0; m < MAPS3; m++) { /* C3 */
            vec a[SIDE3];
            for (int r = 0; r < SIDE3; r++) a[r] = (vec){} + w->c3_bias[m];
            for (const int8_t *source = TABLE_1[m]; *source >= 0; source++, k++)
                for (int i = 0; i < 5; i++)
                    for (int j = 0; j < 5; j++)
                        for (int r = 0; r < SIDE3; r++)
                            a[r] += w->c3[k][i][j] * load(&s->x2[*source][r + i][c + j]);
            for (int r = 0; r < SIDE3; r++)
                activate(o->squash_convolutions, a[r], &s->x3[m][r][c], &s->slope3[m][r][c]);
        }

    float a4[INPUTS5], a5[128] = {0}, a6[96] = {0};
    for (int m = 0; m < MAPS3; m++) /* S4 */
        for (int r = 0; r < SIDE4; r++) {
            window_sums(s->x3[m][2 * r], s->x3[m][2 * r + 1], s->sum3[m][r], SIDE4);
            for (int c = 0; c < SIDE4; c++)
                a4[(m * SIDE4 + r) * SIDE4 + c] = (w->s4[m] * share) * s->sum3[m][r][c] + w->s4_bias[m];
        }
    activate_units(1, a4, INPUTS5, s->x4, s->slope4);

    for (int u = 0; u < UNITS5; u++) a5[u] = dot(w->c5[u], s->x4, INPUTS5) + w->c5_bias[u]; /* C5 */
    activate_units(o->squash_convolutions, a5, UNITS5, s->x5, s->slope5);

    for (int u = 0; u < UNITS6; u++) a6[u] = dot(w->f6[u], s->x5, UNITS5) + w->f6_bias[u]; /* F6 */
    activate_units(1, a6, UNITS6, s->x6, s->slope6);

    for (int c = 0; c < CLASSES; c++) { /* output: eq. 7 */
        float difference[UNITS6];
        for (int u = 0; u < UNITS6; u++) difference[u] = s->x6[u] - centres[c][u];
        s->y[c] = dot(difference, difference, UNITS6);
    }
}

/* ---- the loss ---------------------------------------------------------- */

/* p[c] = e^-y[c] / (e^-j + sum e^-y), the gradient of eq. 9's second term.
 * Shares under 1e-12 are zero: nothing can be seen of them in single
 * precision, and products of such numbers are slow. */
static void penalty_shares(const State *s, float j, float *p) {
    float z[16], least = j;
    for (int c = 0; c < CLASSES; c++) least = s->y[c] < least ? s->y[c] : least;
    for (int c = 0; c < 16; c++) z[c] = least - (c < CLASSES ? s->y[c] : j);
    for (int c = 0; c < 16; c += LANES) store(z + c, vec_exp(clamp(load(z + c), 80.0f)));
    float total = z[CLASSES];
    for (int c = 0; c < CLASSES; c++) total += z[c];
    for (int c = 0; c < CLASSES; c++) p[c] = z[c] < 1e-12f * total ? 0.0f : z[c] / total;
}

/* dE/dx6 of one pattern. */
static void loss_gradient(const State *s, const Options *o, const float (*centres)[UNITS6], int label, float *d) {
    float p[CLASSES] = {0};
    if (o->discriminative) penalty_shares(s, o->j, p);
    for (int u = 0; u < UNITS6; u++) {
        float g = s->x6[u] - centres[label][u];
        for (int c = 0; c < CLASSES; c++) g -= p[c] * (s->x6[u] - centres[c][u]);
        d[u] = 2.0f * g;
    }
}

/* d2E/dx6^2 of one pattern: exact, or that of the right class's penalty alone; never negative. */
static void loss_curvature(const State *s, const Options *o, const float (*centres)[UNITS6], float *d) {
    float p[CLASSES] = {0};
    if (o->discriminative && !o->quadratic_top) penalty_shares(s, o->j, p);
    for (int u = 0; u < UNITS6; u++) {
        float rest = 1.0f, mean = 0.0f, square = 0.0f;
        for (int c = 0; c < CLASSES; c++) {
            float slope = 2.0f * (s->x6[u] - centres[c][u]);
            rest -= p[c];
            mean += p[c] * slope;
            square += p[c] * slope * slope;
        }
        float variance = square - mean * mean;
        d[u] = 2.0f * (rest > 0 ? rest : 0) + (variance > 0 ? variance : 0);
    }
}

/* ---- the way back ------------------------------------------------------ */

/* A layer of `n` units, each connected to all `n_in` inputs. */
static void full_backward(const float *w, const float *x, const float *delta, int n, int n_in,
                          float *g_w, float *g_bias, float *d_x) {
    memset(d_x, 0, n_in * sizeof(float));
    for (int u = 0; u < n; u++) {
        const float *row = w + u * n_in;
        float *g = g_w + u * n_in;
        int i = 0;
        for (; i + LANES <= n_in; i += LANES) {
            store(d_x + i, load(d_x + i) + delta[u] * load(row + i));
            store(g + i, delta[u] * load(x + i));
        }
        for (; i < n_in; i++) {
            d_x[i] += delta[u] * row[i];
            g[i] = delta[u] * x[i];
        }
        g_bias[u] = delta[u];
    }
}

/* From `top` = dE/dx6 to dE/dw for every parameter. It is linear in `top`, and
 * uses weights, inputs and slopes as they are handed in. Handed their squares,
 * and the second derivatives at the top, it computes the diagonal second
 * derivatives of Appendix C, in which every product is replaced by its square.
 */
static void backward(const Parameters *w, const State *s, const float *top, float share, Parameters *g) {
    float d6[96], d5[128], d4[INPUTS5];
    float d3[MAPS3][SIDE3 + 8][32] = {0}; /* four rows and columns of zeros around each map */
    float d2[MAPS1][SIDE2][16], d1[MAPS1][SIDE1][32];

    for (int u = 0; u < UNITS6; u++) d6[u] = top[u] * s->slope6[u];
    full_backward(w->f6[0], s->x5, d6, UNITS6, UNITS5, g->f6[0], g->f6_bias, d5);
    for (int u = 0; u < UNITS5; u++) d5[u] *= s->slope5[u];
    full_backward(w->c5[0], s->x4, d5, UNITS5, INPUTS5, g->c5[0], g->c5_bias, d4);
    for (int u = 0; u < INPUTS5; u++) d4[u] *= s->slope4[u];

    for (int m = 0; m < MAPS3; m++) { /* S4, and the slopes of C3 */
        const float *delta = d4 + m * SIDE4 * SIDE4;
        float bias = 0;
        for (int u = 0; u < SIDE4 * SIDE4; u++) bias += delta[u];
        g->s4_bias[m] = bias;
        g->s4[m] = share * dot(delta, s->sum3[m][0], SIDE4 * SIDE4);
        for (int r = 0; r < SIDE3; r++)
            for (int c = 0; c < SIDE3; c++)
                d3[m][4 + r][4 + c] = (w->s4[m] * share) * delta[r / 2 * SIDE4 + c / 2] * s->slope3[m][r][c];
    }

    for (int m = 0, k = 0; m < MAPS3; m++) { /* C3: weights */
        vec bias = {};
        for (int r = 0; r < SIDE3; r++)
            for (int c = 0; c < 16; c += LANES) bias += load(&d3[m][4 + r][4 + c]);
        g->c3_bias[m] = lane_sum(bias);
        for (const int8_t *source = TABLE_1[m]; *source >= 0; source++, k++)
            for (int i = 0; i < 5; i++) {
                vec sum[5] = {};
                for (int r = 0; r < SIDE3; r++)
                    for (int c = 0; c < 16; c += LANES) {
                        vec delta = load(&d3[m][4 + r][4 + c]);
                        for (int j = 0; j < 5; j++) sum[j] += delta * load(&s->x2[*source][r + i][c + j]);
                    }
                for (int j = 0; j < 5; j++) g->c3[k][i][j] = lane_sum(sum[j]);
            }
    }

    memset(d2, 0, sizeof d2); /* C3: inputs */
    for (int m = 0, k = 0; m < MAPS3; m++)
        for (const int8_t *source = TABLE_1[m]; *source >= 0; source++, k++)
            for (int c = 0; c < 16; c += LANES) {
                vec sum[SIDE2];
                for (int r = 0; r < SIDE2; r++) sum[r] = load(&d2[*source][r][c]);
                for (int i = 0; i < 5; i++)
                    for (int j = 0; j < 5; j++)
                        for (int r = 0; r < SIDE2; r++) sum[r] += w->c3[k][i][j] * load(&d3[m][4 + r - i][4 + c - j]);
                for (int r = 0; r < SIDE2; r++) store(&d2[*source][r][c], sum[r]);
            }

    for (int m = 0; m < MAPS1; m++) { /* S2, and the slopes of C1 */
        vec bias = {}, coefficient = {};
        for (int r = 0; r < SIDE2; r++) {
            for (int c = 0; c < SIDE2; c++) d2[m][r][c] *= s->slope2[m][r][c];
            for (int c = SIDE2; c < 16; c++) d2[m][r][c] = 0;
            for (int c = 0; c < 16; c += LANES) {
                bias += load(&d2[m][r][c]);
                coefficient += load(&d2[m][r][c]) * load(&s->sum1[m][r][c]);
            }
        }
        g->s2_bias[m] = lane_sum(bias);
        g->s2[m] = share * lane_sum(coefficient);
        for (int r = 0; r < SIDE1; r++)
            for (int c = 0; c < 32; c++)
                d1[m][r][c] = (w->s2[m] * share) * d2[m][r / 2][c / 2] * s->slope1[m][r][c];
    }

    for (int m = 0; m < MAPS1; m++) { /* C1 */
        vec bias = {};
        for (int r = 0; r < SIDE1; r++)
            for (int c = 0; c < 32; c += LANES) bias += load(&d1[m][r][c]);
        g->c1_bias[m] = lane_sum(bias);
        for (int i = 0; i < 5; i++) {
            vec sum[5] = {};
            for (int r = 0; r < SIDE1; r++)
                for (int c = 0; c < 32; c += LANES) {
                    vec delta = load(&d1[m][r][c]);
                    for (int j = 0; j < 5; j++) sum[j] += delta * load(s->x0 + (r + i) * SIDE0 + c + j);
                }
            for (int j = 0; j < 5; j++) g->c1[m][i][j] = lane_sum(sum[j]);
        }
    }
}

/* ---- what Python calls -------------------------------------------------- */

static int smallest_penalty(const State *s) {
    int best = 0;
    for (int c = 1; c < CLASSES; c++)
        if (s->y[c] < s->y[best]) best = c;
    return best;
}

/* One update for each of the `n` patterns named in `order`. Adds to
 * `mistakes` the patterns that were misclassified when they came, and returns
 * the sum of their losses under eq. 8 (the right class's penalty). */
double lenet5_updates(float *parameters, const float *rates, const float *patterns, const int64_t *labels,
                      const int64_t *order, int64_t n, const float (*centres)[UNITS6], const Options *o,
                      int64_t *mistakes) {
    static State s;
    static Parameters g;
    const float share = o->subsample_mean ? 0.25f : 1.0f;
    float *gradient = (float *)&g;
    double loss = 0;
    memset(&s, 0, sizeof s);
    for (int64_t t = 0; t < n; t++) {
        const int64_t which = order[t];
        float top[UNITS6];
        forward((Parameters *)parameters, o, centres, patterns + which * SIDE0 * SIDE0, &s);
        loss_gradient(&s, o, centres, (int)labels[which], top);
        backward((Parameters *)parameters, &s, top, share, &g);
        for (int64_t i = 0; i < 60000; i += LANES)
            store(parameters + i, load(parameters + i) - load(rates + i) * load(gradient + i));
        *mistakes += smallest_penalty(&s) != labels[which];
        loss += s.y[labels[which]];
    }
    return loss;
}

/* The class of each of `n` patterns: the one with the smallest penalty. */
void lenet5_classify(const float *parameters, const float *patterns, int64_t n, const float (*centres)[UNITS6],
                     const Options *o, int64_t *classes) {
    static State s;
    memset(&s, 0, sizeof s);
    for (int64_t t = 0; t < n; t++) {
        forward((const Parameters *)parameters, o, centres, patterns + t * SIDE0 * SIDE0, &s);
        classes[t] = smallest_penalty(&s);
    }
}

static void square_all(float *a, size_t bytes) {
    for (size_t i = 0; i < bytes / sizeof(float); i++) a[i] *= a[i];
}

/* With the squares of a layer's cells in place, the sums of four squares in place of
 * the squares of four cells' sums. */
static void sum_squared_cells(State *s) {
    for (int m = 0; m < MAPS1; m++)
        for (int r = 0; r < SIDE2; r++) window_sums(s->x1[m][2 * r], s->x1[m][2 * r + 1], s->sum1[m][r], SIDE2);
    for (int m = 0; m < MAPS3; m++)
        for (int r = 0; r < SIDE4; r++) window_sums(s->x3[m][2 * r], s->x3[m][2 * r + 1], s->sum3[m][r], SIDE4);
}

/* h_kk, the mean over `n` patterns of the diagonal second derivatives (Appendix C). */
void lenet5_curvature(const float *parameters, const float *patterns, int64_t n, const float (*centres)[UNITS6],
                      const Options *o, float *h) {
    static State s;
    static Parameters squared, g;
    static double total[60000];
    const float share = o->subsample_mean ? 0.25f : 1.0f;
    memcpy(&squared, parameters, sizeof squared);
    square_all((float *)&squared, sizeof squared);
    memset(&s, 0, sizeof s);
    memset(total, 0, sizeof total);
    for (int64_t t = 0; t < n; t++) {
        float top[UNITS6];
        forward((const Parameters *)parameters, o, centres, patterns + t * SIDE0 * SIDE0, &s);
        loss_curvature(&s, o, centres, top);
        square_all((float *)&s, sizeof s);
        if (o->shared_coefficient) sum_squared_cells(&s);
        backward(&squared, &s, top, share * share, &g);
        for (int64_t i = 0; i < 60000; i++) total[i] += ((float *)&g)[i];
    }
    for (int64_t i = 0; i < 60000; i++) h[i] = (float)(total[i] / n);
}
