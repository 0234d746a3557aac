"""Slow, obvious NumPy references ("oracles") for the DQN family, written from the papers' definitions alone.

Everything is a plain loop over float64 scalars. Nothing here is meant to be fast.

A distribution of returns is given by atoms: values [N] and weights [N], where the weights are not negative and sum
to 1. Functions work on one example unless their shapes say otherwise. Consecutive rows are laid out as in oracles.py:
[L, B], a `last` row holds the final observation of an episode and the rest of that row is void.
"""

import math
from fractions import Fraction

import numpy as np


def _vector(x):
    """The argument as a list of Python floats (float64), which must have one dimension."""
    array = np.asarray(x, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"expected one dimension, got shape {array.shape}")
    return [float(number) for number in array]


def _elementwise(function, x):
    """Apply a function of one float to a number (a float comes back) or to an array (an array comes back)."""
    numbers = np.asarray(x, dtype=np.float64)
    result = np.zeros(numbers.shape, dtype=np.float64)
    for index in np.ndindex(numbers.shape):
        result[index] = function(float(numbers[index]))
    if result.shape == ():
        return float(result)
    return result


def _log_softmax(logits):
    """List of ln(exp(x_i) / sum_j exp(x_j)), with the maximum taken out so that nothing overflows."""
    highest = max(logits)
    total = 0.0
    for logit in logits:
        total = total + math.exp(logit - highest)
    return [logit - highest - math.log(total) for logit in logits]


# Distributions on fixed supports


def categorical_projection(values, weights, low, high, size):
    """Projection onto a fixed support (Bellemare et al. 2017, C51, Algorithm 1) -> probabilities [size].

    The support is `size` equally spaced points from low to high. Every atom is clipped to [low, high] and shares its
    mass linearly between the two nearest points; an atom on a point leaves all of its mass there.
    """
    values = _vector(values)
    weights = _vector(weights)
    if len(values) != len(weights):
        raise ValueError("values and weights must have the same length")
    if size < 2 or not low < high:
        raise ValueError("the support needs two points or more, and low < high")
    gap = (float(high) - float(low)) / (size - 1)
    result = np.zeros(size, dtype=np.float64)
    for value, weight in zip(values, weights, strict=True):
        clipped = min(max(value, float(low)), float(high))
        position = min(max((clipped - float(low)) / gap, 0.0), float(size - 1))
        lower = math.floor(position)
        upper = math.ceil(position)
        if lower == upper:
            result[lower] += weight
        else:
            result[lower] += weight * (upper - position)
            result[upper] += weight * (position - lower)
    return result


def cross_entropy(target, logits):
    """Cross entropy - sum_i target_i ln softmax(logits)_i (the loss of Bellemare et al. 2017, Algorithm 1) -> float.

    A target probability of 0 contributes 0.
    """
    target = _vector(target)
    log_probabilities = _log_softmax(_vector(logits))
    total = 0.0
    for probability, log_probability in zip(target, log_probabilities, strict=True):
        if probability > 0.0:
            total = total - probability * log_probability
    return total


def kl_divergence(target, logits):
    """KL(target || softmax(logits)) = sum_i target_i (ln target_i - ln softmax_i) (Kullback and Leibler 1951) -> float.

    This is the priority of Rainbow (Hessel et al. 2018). 0 ln 0 is 0.
    """
    target = _vector(target)
    log_probabilities = _log_softmax(_vector(logits))
    total = 0.0
    for probability, log_probability in zip(target, log_probabilities, strict=True):
        if probability > 0.0:
            total = total + probability * (math.log(probability) - log_probability)
    return total


def hl_gauss_target(mean, low, high, size, smoothing):
    """HL-Gauss, the histogram of a Gaussian (Farebrother et al. 2024, Stop Regressing) -> probabilities [size].

    The support is `size` equally spaced points from low to high, and bin i reaches half a gap to either side of point
    i. The Gaussian has the clipped mean and sigma = smoothing * gap, and is renormalised to the range of the bins.
    """
    if size < 2 or not low < high:
        raise ValueError("the support needs two points or more, and low < high")
    gap = (float(high) - float(low)) / (size - 1)
    sigma = float(smoothing) * gap
    centre = min(max(float(mean), float(low)), float(high))

    def cumulative(edge):
        return 0.5 * (1.0 + math.erf((edge - centre) / (sigma * math.sqrt(2.0))))

    first_edge = float(low) - 0.5 * gap
    last_edge = float(high) + 0.5 * gap
    inside = cumulative(last_edge) - cumulative(first_edge)
    result = np.zeros(size, dtype=np.float64)
    for point in range(size):
        left = float(low) + (point - 0.5) * gap
        right = float(low) + (point + 0.5) * gap
        result[point] = (cumulative(right) - cumulative(left)) / inside
    return result


# Quantiles


def quantile_huber_loss(value, fraction, target_values, target_weights, kappa):
    """Quantile Huber loss (Dabney et al. 2018a, QR-DQN, eq. 10; over kappa as in 2018b, IQN, eq. 3) -> float.

    sum_i sum_j target_weights_j |fraction_i - 1(u < 0)| huber_kappa(u) / kappa with u = target_j - value_i. With kappa
    0 it is the limit, the plain quantile regression loss, where huber_kappa(u) / kappa becomes |u| (QR-DQN-0).
    Dabney et al. 2018a do not divide by kappa, which makes no difference to kappa 1.
    """
    value = _vector(value)
    fraction = _vector(fraction)
    target_values = _vector(target_values)
    target_weights = _vector(target_weights)
    if len(value) != len(fraction) or len(target_values) != len(target_weights):
        raise ValueError("a fraction for every value and a weight for every target, please")
    total = 0.0
    for one_value, one_fraction in zip(value, fraction, strict=True):
        for one_target, one_weight in zip(target_values, target_weights, strict=True):
            error = one_target - one_value
            below = 1.0 if error < 0.0 else 0.0
            magnitude = abs(error)
            if kappa == 0:
                scaled_huber = magnitude
            elif magnitude <= kappa:
                scaled_huber = 0.5 * magnitude * magnitude / kappa
            else:
                scaled_huber = kappa * (magnitude - 0.5 * kappa) / kappa
            total = total + one_weight * abs(one_fraction - below) * scaled_huber
    return total


def implicit_embedding(fraction, kernel, bias):
    """Cosine embedding of a fraction (Dabney et al. 2018b, IQN, eq. 4), kernel [64, F], bias [F] -> [F].

    relu(sum_{i=0}^{n-1} cos(pi i fraction) kernel_ij + bias_j), where n is the number of rows, 64 in the paper.
    """
    kernel = np.asarray(kernel, dtype=np.float64)
    bias = _vector(bias)
    cosines, features = kernel.shape
    if len(bias) != features:
        raise ValueError("kernel is [n, F] where bias is [F]")
    result = np.zeros(features, dtype=np.float64)
    for feature in range(features):
        total = bias[feature]
        for i in range(cosines):
            total = total + math.cos(math.pi * i * float(fraction)) * float(kernel[i, feature])
        result[feature] = max(total, 0.0)
    return result


def fqf_fractions(logits):
    """Proposed fractions (Yang et al. 2019, FQF) -> (edges [N - 1], middles [N], widths [N]).

    The widths are softmax(logits), tau_i is the sum of the first i of them, tau_0 = 0 and tau_N = 1. The edges are
    tau_1 .. tau_{N-1} and middle i is (tau_i + tau_{i+1}) / 2.
    """
    widths = [math.exp(log_width) for log_width in _log_softmax(_vector(logits))]
    size = len(widths)
    edges = []
    total = 0.0
    for i in range(size - 1):
        total = total + widths[i]
        edges.append(total)
    all_edges = [0.0, *edges, 1.0]
    middles = []
    for i in range(size):
        middles.append((all_edges[i] + all_edges[i + 1]) / 2.0)
    return (
        np.array(edges, dtype=np.float64),
        np.array(middles, dtype=np.float64),
        np.array(widths, dtype=np.float64),
    )


def fqf_fraction_gradient(values_at_middles, values_at_edges):
    """Gradient of the 1-Wasserstein error in the inner fractions (Yang et al. 2019, FQF, Proposition 1) -> [N - 1].

    dW1 / dtau_i = 2 F(tau_i) - F(middle_i) - F(middle_{i-1}) for i = 1 .. N - 1, where F is the quantile function.
    Entry i - 1 of the result, and of values_at_edges, belongs to tau_i.
    """
    middles = _vector(values_at_middles)
    edges = _vector(values_at_edges)
    if len(edges) != len(middles) - 1:
        raise ValueError("N middles go with N - 1 edges")
    result = np.zeros(len(edges), dtype=np.float64)
    for i in range(1, len(middles)):
        result[i - 1] = 2.0 * edges[i - 1] - middles[i] - middles[i - 1]
    return result


# Targets


def munchausen_target(
    reward, discount, action, q_now_target, next_values, next_weights, scale, temperature, floor, mixture
):
    """Munchausen target with a clipped bonus (Vieillard et al. 2020, M-DQN and M-IQN) -> (values, weights).

    r + scale clip(temperature ln pi(a|s), floor, 0) + discount (soft value of the next state), where pi is the softmax
    of action values / temperature; those of this state are q_now_target [A] and those of the next state the weighted
    means of its atoms, next_values and next_weights [A, N]. `discount` is 0 after a termination.

    Without `mixture` (M-IQN): N atoms, atom j is sum_a' pi(a'|s') (z_j(s', a') - temperature ln pi(a'|s')), and the
    weights, which all actions must share, stay. With `mixture`: A * N atoms, action-major, with values z_j(s', a') -
    temperature ln pi(a'|s') and weights pi(a'|s') w_j(s', a'). Both have the same mean, that of M-DQN.
    """
    now = _vector(q_now_target)
    next_values = np.asarray(next_values, dtype=np.float64)
    next_weights = np.asarray(next_weights, dtype=np.float64)
    if next_values.shape != next_weights.shape or next_values.ndim != 2 or len(now) != next_values.shape[0]:
        raise ValueError("next_values and next_weights are [A, N] where q_now_target is [A]")
    actions, atoms = next_values.shape

    log_policy_now = _log_softmax([one / temperature for one in now])
    bonus = scale * min(max(temperature * log_policy_now[int(action)], floor), 0.0)

    next_means = []
    for next_action in range(actions):
        total = 0.0
        for atom in range(atoms):
            total = total + float(next_weights[next_action, atom]) * float(next_values[next_action, atom])
        next_means.append(total)
    log_policy_next = _log_softmax([one / temperature for one in next_means])

    values = []
    weights = []
    if mixture:
        for next_action in range(actions):
            for atom in range(atoms):
                soft = float(next_values[next_action, atom]) - temperature * log_policy_next[next_action]
                values.append(float(reward) + bonus + float(discount) * soft)
                weights.append(math.exp(log_policy_next[next_action]) * float(next_weights[next_action, atom]))
    else:
        for atom in range(atoms):
            total = 0.0
            for next_action in range(actions):
                if abs(float(next_weights[next_action, atom]) - float(next_weights[0, atom])) > 1e-9:
                    raise ValueError("without mixture all actions must share their weights")
                soft = float(next_values[next_action, atom]) - temperature * log_policy_next[next_action]
                total = total + math.exp(log_policy_next[next_action]) * soft
            values.append(float(reward) + bonus + float(discount) * total)
            weights.append(float(next_weights[0, atom]))
    return np.array(values, dtype=np.float64), np.array(weights, dtype=np.float64)


def q_lambda_targets(reward, terminated, last, best_next_value, discount, trace_decay):
    """Peng's Q(lambda) (Peng and Williams 1996; the lambda return of Sutton and Barto 2018, eq. 12.3) -> [U, B].

    The recursion is G_t = r_t + discount (1 - terminated_t) ((1 - lambda) V_{t+1} + lambda G_{t+1}), where
    V_{t+1} = best_next_value[t], and where V_{t+1} takes the place of the bracket if row t + 1 is a last row or t is
    the final row, U - 1. `last` has U + 1 rows. This is its forward view: from row t there are K steps to that end, and

        G_t = (1 - lambda) sum_{n=1}^{K-1} lambda^(n-1) G_t^(n) + lambda^(K-1) G_t^(K)

    with the n-step return G_t^(n) = sum_{i<n} D_i r_{t+i} + D_n V_{t+n}, D_i the product of discount (1 - terminated)
    over the first i steps. The answer is nan where row t is itself a last row.
    """
    reward = np.asarray(reward, dtype=np.float64)
    terminated = np.asarray(terminated, dtype=bool)
    last = np.asarray(last, dtype=bool)
    best_next_value = np.asarray(best_next_value, dtype=np.float64)
    rows, batch = reward.shape
    if not terminated.shape == best_next_value.shape == (rows, batch) or last.shape != (rows + 1, batch):
        raise ValueError("reward, terminated and best_next_value are [U, B] and last is [U + 1, B]")
    result = np.full((rows, batch), math.nan, dtype=np.float64)
    for column in range(batch):
        for start in range(rows):
            if last[start, column]:
                continue
            steps = 1
            while start + steps < rows and not last[start + steps, column]:
                steps = steps + 1
            total = 0.0
            for n in range(1, steps + 1):
                n_step_return = 0.0
                product = 1.0
                for i in range(n):
                    row = start + i
                    n_step_return = n_step_return + product * float(reward[row, column])
                    product = product * float(discount) * (0.0 if terminated[row, column] else 1.0)
                n_step_return = n_step_return + product * float(best_next_value[start + n - 1, column])
                if n < steps:
                    total = total + (1.0 - trace_decay) * trace_decay ** (n - 1) * n_step_return
                else:
                    total = total + trace_decay ** (n - 1) * n_step_return
            result[start, column] = total
    return result


def value_rescale(x, epsilon=1e-3):
    """h(x) = sign(x) (sqrt(|x| + 1) - 1) + epsilon x (Pohlen et al. 2018; R2D2, Kapturowski et al. 2019).

    sqrt(|x| + 1) - 1 is written |x| / (sqrt(|x| + 1) + 1), the same number without the loss of digits near 0. Takes a
    number or an array.
    """

    def rescale(number):
        magnitude = abs(number)
        return math.copysign(magnitude / (math.sqrt(magnitude + 1.0) + 1.0), number) + epsilon * number

    return _elementwise(rescale, x)


def value_unscale(x, epsilon=1e-3):
    """The inverse of value_rescale (Pohlen et al. 2018; Kapturowski et al. 2019), by bisection to 1e-14 of the answer.

    h is odd and increasing, so the magnitude is bisected and the sign put back. Takes a number or an array.
    """

    def unscale(number):
        wanted = abs(number)
        if wanted == 0.0:
            return 0.0
        low = 0.0
        high = 1.0
        while value_rescale(high, epsilon) < wanted:
            high = 2.0 * high
        for _ in range(5000):
            if high - low <= 1e-14 * high:
                break
            middle = 0.5 * (low + high)
            if value_rescale(middle, epsilon) < wanted:
                low = middle
            else:
                high = middle
        return math.copysign(0.5 * (low + high), number)

    return _elementwise(unscale, x)


# Prioritised replay


def per_priority(error, exponent, epsilon=1e-6):
    """(|error| + epsilon)^exponent, proportional priority raised (Schaul et al. 2016, section 3.3). Number or array."""
    return _elementwise(lambda number: (abs(number) + epsilon) ** exponent, error)


def per_probabilities(priorities, exponent):
    """P(i) = p_i^exponent / sum_k p_k^exponent (Schaul et al. 2016, eq. 1) -> [N].

    The paper's priorities are positive. An entry of 0 holds nothing and has probability 0, even with exponent 0.
    """
    raised = []
    total = 0.0
    for priority in _vector(priorities):
        one = priority**exponent if priority > 0.0 else 0.0
        raised.append(one)
        total = total + one
    return np.array([one / total for one in raised], dtype=np.float64)


def per_weights(probabilities, stored, beta):
    """Importance weights (N P(i))^-beta over their maximum in the batch (Schaul et al. 2016, section 3.4) -> [B].

    `probabilities` are those of the entries drawn and `stored` is N, the number of entries they were drawn from.
    """
    weights = [(stored * probability) ** -beta for probability in _vector(probabilities)]
    highest = max(weights)
    return np.array([weight / highest for weight in weights], dtype=np.float64)


def importance_exponent(ticks, start, end, steps):
    """Annealed beta of Schaul et al. (2016, section 3.4): linear from start (tick 0) to end (tick `steps`), then end.

    Takes a number or an array of ticks. With steps 0 the answer is `end`.
    """

    def schedule(tick):
        if tick >= steps:
            return end
        return start + (end - start) * tick / steps

    return _elementwise(schedule, ticks)


def stratified_counts_bounds(priorities, batch):
    """How often stratified sampling can draw each leaf (Schaul et al. 2016, appendix B.2.1) -> (minimum, maximum).

    Two integer arrays [N], one entry for each leaf.

    The range [0, total) is cut into `batch` equal strata, and one point is drawn uniformly from each; leaf i owns the
    half-open interval between its neighbouring cumulative sums. A stratum that lies inside the interval must draw the
    leaf, and one that shares a piece of positive length with it can. Computed with exact fractions: an implementation
    in floating point can only be held to this if its cumulative sums are exact too (small integers, say).
    """
    leaves = [Fraction(priority) for priority in _vector(priorities)]
    total = Fraction(0)
    for leaf in leaves:
        total = total + leaf
    minimum = np.zeros(len(leaves), dtype=np.int64)
    maximum = np.zeros(len(leaves), dtype=np.int64)
    left = Fraction(0)
    for place, leaf in enumerate(leaves):
        right = left + leaf
        for stratum in range(batch):
            stratum_left = total * stratum / batch
            stratum_right = total * (stratum + 1) / batch
            if left <= stratum_left and stratum_right <= right:
                minimum[place] += 1
            if max(left, stratum_left) < min(right, stratum_right):
                maximum[place] += 1
        left = right
    return minimum, maximum


def sequence_priority(errors, valid, max_fraction):
    """max_fraction max |error| + (1 - max_fraction) mean |error| (R2D2, Kapturowski et al. 2019) -> float.

    Over the rows of the sequence that are valid; 0 if there is none.
    """
    magnitudes = []
    for error, counts in zip(_vector(errors), np.asarray(valid, dtype=bool), strict=True):
        if counts:
            magnitudes.append(abs(error))
    if not magnitudes:
        return 0.0
    total = 0.0
    for magnitude in magnitudes:
        total = total + magnitude
    return max_fraction * max(magnitudes) + (1.0 - max_fraction) * total / len(magnitudes)


# Exploration


def noisy_dense(x, kernel, bias, kernel_spread, bias_spread, e_in, e_out):
    """Noisy layer with factorised noise (Fortunato et al. 2018, NoisyNet, eq. 9 to 11) for the given noise -> [O].

    y_o = sum_i x_i (W_io + Sw_io f(e_in_i) f(e_out_o)) + b_o + Sb_o f(e_out_o), with f(e) = sign(e) sqrt|e|. Shapes: x
    and e_in [I], kernel and kernel_spread [I, O], bias, bias_spread and e_out [O].
    """
    x = _vector(x)
    bias = _vector(bias)
    bias_spread = _vector(bias_spread)
    kernel = np.asarray(kernel, dtype=np.float64)
    kernel_spread = np.asarray(kernel_spread, dtype=np.float64)
    f_in = [math.copysign(math.sqrt(abs(noise)), noise) for noise in _vector(e_in)]
    f_out = [math.copysign(math.sqrt(abs(noise)), noise) for noise in _vector(e_out)]
    inputs, outputs = kernel.shape
    if kernel_spread.shape != kernel.shape or not len(x) == len(f_in) == inputs:
        raise ValueError("kernel and kernel_spread are [I, O] where x and e_in are [I]")
    if not len(bias) == len(bias_spread) == len(f_out) == outputs:
        raise ValueError("kernel is [I, O] where bias, bias_spread and e_out are [O]")
    result = np.zeros(outputs, dtype=np.float64)
    for o in range(outputs):
        total = bias[o] + bias_spread[o] * f_out[o]
        for i in range(inputs):
            total = total + x[i] * (float(kernel[i, o]) + float(kernel_spread[i, o]) * f_in[i] * f_out[o])
        result[o] = total
    return result


def noisy_dense_moments(x, kernel, bias, kernel_spread, bias_spread):
    """Exact moments of noisy_dense over standard normal noise (Fortunato et al. 2018) -> (mean [O], variance [O]).

    Write y_o = m_o + f(e_out_o) (sum_i x_i Sw_io f(e_in_i) + Sb_o), with m = x W + b. All noises are independent and
    E f = 0, so the mean is m_o. The noise part is a product of two independent factors of which the first has mean 0,
    so the variance is the product of their second moments. E f^2 = E|e| = sqrt(2 / pi) = c, and the cross terms inside
    the second factor vanish because E f(e_in_i) = 0: the variance is c (c sum_i x_i^2 Sw_io^2 + Sb_o^2).
    """
    x = _vector(x)
    bias = _vector(bias)
    bias_spread = _vector(bias_spread)
    kernel = np.asarray(kernel, dtype=np.float64)
    kernel_spread = np.asarray(kernel_spread, dtype=np.float64)
    inputs, outputs = kernel.shape
    c = math.sqrt(2.0 / math.pi)
    mean = np.zeros(outputs, dtype=np.float64)
    variance = np.zeros(outputs, dtype=np.float64)
    for o in range(outputs):
        total = bias[o]
        second_moment = bias_spread[o] ** 2
        for i in range(inputs):
            total = total + x[i] * float(kernel[i, o])
            second_moment = second_moment + c * x[i] ** 2 * float(kernel_spread[i, o]) ** 2
        mean[o] = total
        variance[o] = c * second_moment
    return mean, variance


def ladder(base, exponent, environments):
    """epsilon_i = base^(1 + exponent i / (E - 1)), one for each actor (Horgan et al. 2018, Ape-X) -> [E].

    A single environment gets base.
    """
    result = np.zeros(environments, dtype=np.float64)
    for i in range(environments):
        rung = 0.0 if environments == 1 else i / (environments - 1)
        result[i] = base ** (1.0 + exponent * rung)
    return result


# Observations and optimisation


def frame_stacks(frames, last, k):
    """Stacks of the newest k frames, oldest first (Mnih et al. 2015, preprocessing) -> list of L arrays [k, *obs].

    `frames` is [L, *obs] and `last` is [L]. A last row still belongs to the episode that it ends, and the row after it
    begins an episode. Frames from before the episode began, or from before row 0, are zeros.
    """
    frames = np.asarray(frames)
    last = np.asarray(last, dtype=bool)
    stacks = []
    for row in range(len(frames)):
        beginning = row
        while beginning > 0 and not last[beginning - 1]:
            beginning = beginning - 1
        stack = np.zeros((k, *frames.shape[1:]), dtype=frames.dtype)
        for place in range(k):
            source = row - (k - 1) + place
            if source >= beginning:
                stack[place] = frames[source]
        stacks.append(stack)
    return stacks


def rmsprop_step(gradient, mean_square, learning_rate, decay=0.95, epsilon=1e-8, epsilon_in_root=True):
    """One step of RMSProp, not centred (Tieleman and Hinton 2012, lecture 6.5) -> (update to subtract, mean square).

    mean square = decay * mean square + (1 - decay) gradient^2 and update = learning rate * gradient / root. The lecture
    has no epsilon; the root here is sqrt(mean square + epsilon) or, if not `epsilon_in_root`, sqrt(mean square) +
    epsilon. The mean square given is that before the step, zeros at first.
    """
    gradient = np.asarray(gradient, dtype=np.float64)
    mean_square = np.asarray(mean_square, dtype=np.float64)
    if gradient.shape != mean_square.shape:
        raise ValueError("gradient and mean_square must have the same shape")
    update = np.zeros(gradient.shape, dtype=np.float64)
    new_mean_square = np.zeros(gradient.shape, dtype=np.float64)
    for index in np.ndindex(gradient.shape):
        slope = float(gradient[index])
        average = decay * float(mean_square[index]) + (1.0 - decay) * slope * slope
        root = math.sqrt(average + epsilon) if epsilon_in_root else math.sqrt(average) + epsilon
        new_mean_square[index] = average
        update[index] = learning_rate * slope / root
    return update, new_mean_square
