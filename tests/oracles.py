"""Slow, obvious NumPy references ("oracles"), written from the definitions alone.

Everything is a plain loop over float64 scalars. Nothing here is meant to be fast.

Data layout: consecutive rows of an environment, arrays [L, B] (time first, batch second). A `last` row holds the final
observation of an episode and its action, reward and terminated flag are void; the next row starts a new episode. The
successor of any other row is the next row. `terminated` on a row says that its successor state is worth 0.

Parameters named `n`, `x`, `P` and `R` follow the symbols of the papers.
"""

import math

import numpy as np


def n_step_returns(reward, terminated, last, discount, n):
    """Truncated n-step returns: Sutton and Barto, Reinforcement Learning (2nd edition, 2018), section 7.1, eq. 7.1.

    A window starting at row t takes K steps, where K is the smallest number in 1..n such that row t + K is a last row,
    or n if there is none. A time limit bootstraps with discount^K, a termination with 0 (Pardo et al. 2018, Time Limits
    in Reinforcement Learning). The flags of a last row are void and are not read.

    Returns a dict of arrays [L - n, B]: reward, discount, bootstrap, ended, valid. Raises ValueError if a termination
    is not followed by a last row, because the definition gives such data no meaning.
    """
    reward = np.asarray(reward, dtype=np.float64)
    terminated = np.asarray(terminated, dtype=bool)
    last = np.asarray(last, dtype=bool)
    if n < 1:
        raise ValueError("n must be at least 1")
    if not reward.shape == terminated.shape == last.shape:
        raise ValueError("reward, terminated and last must have the same shape")
    rows, batch = reward.shape
    for column in range(batch):
        for row in range(rows - 1):
            if not last[row, column] and terminated[row, column] and not last[row + 1, column]:
                raise ValueError(f"row {row} of environment {column} terminates but the next row is not a last row")

    starts = max(rows - n, 0)
    result = {
        "reward": np.zeros((starts, batch), dtype=np.float64),
        "discount": np.ones((starts, batch), dtype=np.float64),
        "bootstrap": np.zeros((starts, batch), dtype=np.int64),
        "ended": np.zeros((starts, batch), dtype=bool),
        "valid": np.zeros((starts, batch), dtype=bool),
    }
    for column in range(batch):
        for start in range(starts):
            if last[start, column]:
                result["reward"][start, column] = 0.0
                result["discount"][start, column] = 1.0
                result["bootstrap"][start, column] = start
                result["ended"][start, column] = True
                result["valid"][start, column] = False
                continue
            total = 0.0
            steps = 0
            any_terminated = False
            while steps < n and not last[start + steps, column]:
                total = total + float(discount) ** steps * float(reward[start + steps, column])
                if terminated[start + steps, column]:
                    any_terminated = True
                steps = steps + 1
            result["reward"][start, column] = total
            result["discount"][start, column] = 0.0 if any_terminated else float(discount) ** steps
            result["bootstrap"][start, column] = start + steps
            result["ended"][start, column] = last[start + steps, column]
            result["valid"][start, column] = True
    return result


def greedy_targets(returns, q_next_online, q_next_target, double):
    """Targets of Q-learning (Watkins 1989), DQN (Mnih et al. 2015), and Double DQN (van Hasselt et al. 2016).

    `returns` is the dict of n_step_returns; the action values [U, B, A] are those at the bootstrap rows. A tie goes to
    the lowest action. Rows that are not valid get the same formula, so the caller must mask them.
    """
    online = np.asarray(q_next_online, dtype=np.float64)
    target = np.asarray(q_next_target, dtype=np.float64)
    rows, batch, actions = target.shape
    result = np.zeros((rows, batch), dtype=np.float64)
    for row in range(rows):
        for column in range(batch):
            chooser = online if double else target
            best_action = 0
            for action in range(actions):
                if chooser[row, column, action] > chooser[row, column, best_action]:
                    best_action = action
            next_value = float(target[row, column, best_action])
            one_reward = float(returns["reward"][row, column])
            one_discount = float(returns["discount"][row, column])
            result[row, column] = one_reward + one_discount * next_value
    return result


def huber(x, delta=1.0):
    """Elementwise Huber loss (Huber 1964): x^2 / 2 up to delta, delta (|x| - delta / 2) beyond. No reduction."""
    errors = np.asarray(x, dtype=np.float64)
    result = np.zeros(errors.shape, dtype=np.float64)
    for index in np.ndindex(errors.shape):
        magnitude = abs(float(errors[index]))
        if magnitude <= delta:
            result[index] = 0.5 * magnitude * magnitude
        else:
            result[index] = delta * (magnitude - 0.5 * delta)
    return result


def dueling(value, advantage):
    """Dueling aggregation (Wang et al. 2016, equation 9): V + A - mean A, value [..., 1], advantage [..., A]."""
    value = np.asarray(value, dtype=np.float64)
    advantage = np.asarray(advantage, dtype=np.float64)
    if value.shape != (*advantage.shape[:-1], 1):
        raise ValueError("value must be [..., 1] where advantage is [..., A]")
    actions = advantage.shape[-1]
    result = np.zeros(advantage.shape, dtype=np.float64)
    for index in np.ndindex(advantage.shape[:-1]):
        total = 0.0
        for action in range(actions):
            total = total + float(advantage[(*index, action)])
        mean = total / actions
        for action in range(actions):
            result[(*index, action)] = float(value[(*index, 0)]) + float(advantage[(*index, action)]) - mean
    return result


def epsilon(ticks, start, end, steps):
    """Exploration schedule of Mnih et al. (2015): linear from start (tick 0) to end (tick `steps`), then constant.

    `ticks` may be a number (a float comes back) or an array (an array comes back). With steps 0 the answer is `end`.
    """
    ticks = np.asarray(ticks, dtype=np.float64)
    result = np.zeros(ticks.shape, dtype=np.float64)
    for index in np.ndindex(ticks.shape):
        tick = float(ticks[index])
        if tick >= steps:
            result[index] = end
        else:
            result[index] = start + (end - start) * tick / steps
    if result.shape == ():
        return float(result)
    return result


def target_network(online, target, rate):
    """Polyak average of Lillicrap et al. (2016, DDPG, Algorithm 1): (1 - rate) target + rate online.

    Takes arrays, or dicts, lists or tuples of them (nested as deep as you like), and returns the same structure.
    """
    if isinstance(target, dict):
        if set(online) != set(target):
            raise ValueError("online and target must have the same keys")
        return {name: target_network(online[name], target[name], rate) for name in target}
    if isinstance(target, (list, tuple)):
        if len(online) != len(target):
            raise ValueError("online and target must have the same length")
        return type(target)([target_network(online[place], target[place], rate) for place in range(len(target))])
    online = np.asarray(online, dtype=np.float64)
    target = np.asarray(target, dtype=np.float64)
    if online.shape != target.shape:
        raise ValueError("online and target must have the same shape")
    result = np.zeros(target.shape, dtype=np.float64)
    for index in np.ndindex(target.shape):
        result[index] = (1.0 - rate) * float(target[index]) + rate * float(online[index])
    return result


def adam_step(gradient, first, second, count, learning_rate, beta1=0.9, beta2=0.999, epsilon=1e-8):
    """One step of Adam (Kingma and Ba 2015, Algorithm 1) -> (update to subtract, first moment, second moment).

    `count` is the algorithm's t as it stands inside the step: 1 for the very first step. The moments given are those
    before the step (zeros at first) and those returned are the raw ones, not bias corrected.
    """
    if count < 1:
        raise ValueError("count is 1 for the first step")
    gradient = np.asarray(gradient, dtype=np.float64)
    first = np.asarray(first, dtype=np.float64)
    second = np.asarray(second, dtype=np.float64)
    if not gradient.shape == first.shape == second.shape:
        raise ValueError("gradient, first and second must have the same shape")
    update = np.zeros(gradient.shape, dtype=np.float64)
    new_first = np.zeros(gradient.shape, dtype=np.float64)
    new_second = np.zeros(gradient.shape, dtype=np.float64)
    for index in np.ndindex(gradient.shape):
        slope = float(gradient[index])
        new_first[index] = beta1 * float(first[index]) + (1.0 - beta1) * slope
        new_second[index] = beta2 * float(second[index]) + (1.0 - beta2) * slope * slope
        corrected_first = float(new_first[index]) / (1.0 - beta1**count)
        corrected_second = float(new_second[index]) / (1.0 - beta2**count)
        update[index] = learning_rate * corrected_first / (math.sqrt(corrected_second) + epsilon)
    return update, new_first, new_second


def clip_by_global_norm(gradients, maximum):
    """Gradient norm clipping (Pascanu et al. 2013, Algorithm 1) over a list of arrays -> list of arrays.

    If the Euclidean norm of all entries together exceeds `maximum`, every entry is scaled by maximum / norm; otherwise
    the gradients come back as they are.
    """
    arrays = [np.asarray(gradient, dtype=np.float64) for gradient in gradients]
    total = 0.0
    for array in arrays:
        for index in np.ndindex(array.shape):
            total = total + float(array[index]) ** 2
    norm = math.sqrt(total)
    clipped = []
    for array in arrays:
        result = np.zeros(array.shape, dtype=np.float64)
        for index in np.ndindex(array.shape):
            if norm > maximum:
                result[index] = float(array[index]) * maximum / norm
            else:
                result[index] = float(array[index])
        clipped.append(result)
    return clipped


def frozen_lake(map_rows=("SFFF", "FHFH", "FFFH", "HFFG"), slip=2.0 / 3.0):
    """Transition model of Gymnasium's FrozenLake (documentation of FrozenLake-v1) -> (P, R, terminal).

    Actions: 0 left, 1 down, 2 right, 3 up. State = row * columns + column. The move goes in the chosen direction with
    probability 1 - slip and in each of the two perpendicular ones with slip / 2; the default 2/3 is Gymnasium's
    slippery lake (1/3 each) and 0 its non-slippery one. A move off the map stays in place. Holes and the goal are
    terminal: in P they lead to themselves with probability 1 and reward 0. R [S, A] is the expected reward, 1 for a
    move onto G.
    """
    height = len(map_rows)
    width = len(map_rows[0])
    states = height * width
    moves = [(0, -1), (1, 0), (0, 1), (-1, 0)]
    transition = np.zeros((states, 4, states), dtype=np.float64)
    expected_reward = np.zeros((states, 4), dtype=np.float64)
    terminal = np.zeros(states, dtype=bool)
    for row in range(height):
        for column in range(width):
            state = row * width + column
            terminal[state] = map_rows[row][column] in "HG"
            for action in range(4):
                if terminal[state]:
                    transition[state, action, state] = 1.0
                    continue
                outcomes = [
                    (action, 1.0 - slip),
                    ((action + 1) % 4, slip / 2.0),
                    ((action + 3) % 4, slip / 2.0),
                ]
                for direction, probability in outcomes:
                    next_row = min(max(row + moves[direction][0], 0), height - 1)
                    next_column = min(max(column + moves[direction][1], 0), width - 1)
                    transition[state, action, next_row * width + next_column] += probability
                    if map_rows[next_row][next_column] == "G":
                        expected_reward[state, action] += probability * 1.0
    return transition, expected_reward, terminal


def value_iteration(P, R, terminal, discount, tolerance=1e-12):
    """Value iteration (Sutton and Barto 2018, section 4.4) with synchronous sweeps -> (V [S], Q [S, A]).

    Terminal states are worth 0 and so are their actions. Sweeps until no value moves by more than `tolerance`; V is the
    maximum of the Q returned. The distance to the true values is then at most tolerance * discount / (1 - discount).
    """
    states, actions, _ = P.shape
    value = np.zeros(states, dtype=np.float64)
    for _ in range(1_000_000):
        action_value = np.zeros((states, actions), dtype=np.float64)
        new_value = np.zeros(states, dtype=np.float64)
        change = 0.0
        for state in range(states):
            if terminal[state]:
                continue
            for action in range(actions):
                total = float(R[state, action])
                for successor in range(states):
                    if not terminal[successor]:
                        total = total + discount * float(P[state, action, successor]) * float(value[successor])
                action_value[state, action] = total
            new_value[state] = max(float(action_value[state, action]) for action in range(actions))
            change = max(change, abs(float(new_value[state]) - float(value[state])))
        value = new_value
        if change <= tolerance:
            return value, action_value
    raise RuntimeError("value iteration did not converge in a million sweeps")


def policy_value(P, R, terminal, discount, policy):
    """Exact value of a deterministic policy: the Bellman equation (Sutton and Barto 2018, 3.14) as a linear system.

    Solves V(s) - discount * sum over non-terminal s' of P(s, policy(s), s') V(s') = R(s, policy(s)), with V = 0 on
    terminal states, whatever the policy says there.
    """
    states = P.shape[0]
    matrix = np.zeros((states, states), dtype=np.float64)
    right_side = np.zeros(states, dtype=np.float64)
    for state in range(states):
        matrix[state, state] = 1.0
        if terminal[state]:
            continue
        action = int(policy[state])
        right_side[state] = float(R[state, action])
        for successor in range(states):
            if not terminal[successor]:
                matrix[state, successor] -= discount * float(P[state, action, successor])
    return np.linalg.solve(matrix, right_side)


def chain_values(limit, terminal, reward, final_reward, discount, final_value=0.0):
    """Values [limit] of a chain walked for exactly `limit` steps, by backing up from the end.

    Entry t is the value of the state after t steps: Bellman equation (Sutton and Barto 2018, 3.14) for one possible
    action; the time limit bootstraps as in Pardo et al. 2018 (partial-episode bootstrapping). The step that
    ends the episode, from t = limit - 1, pays `final_reward` in both cases. If `terminal` what follows is worth 0 and
    `final_value` is ignored; otherwise the final observation, t = limit, is worth `final_value`.
    """
    values = np.zeros(limit, dtype=np.float64)
    following = 0.0 if terminal else float(final_value)
    for steps_done in reversed(range(limit)):
        paid = final_reward if steps_done == limit - 1 else reward
        following = paid + discount * following
        values[steps_done] = following
    return values


def uniform_segments(rows_written, capacity, segment_length):
    """Absolute start rows of every whole segment in a ring buffer (replay memory: Lin 1992; Mnih et al. 2015).

    The buffer holds the newest `capacity` of rows 0..rows_written-1. A start s counts if rows s..s+segment_length-1 are
    all held, so no segment crosses from the newest row to the oldest. Empty if nothing fits.
    """
    held = []
    for row in range(rows_written):
        if row >= rows_written - capacity:
            held.append(row)
    held_rows = set(held)
    starts = []
    for start in held:
        if all(start + offset in held_rows for offset in range(segment_length)):
            starts.append(start)
    return starts
