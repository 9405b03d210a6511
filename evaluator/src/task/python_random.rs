//! CPython's `random.Random`: the Mersenne Twister MT19937 (Matsumoto and Nishimura, 1998) seeded by an integer, and what
//! is drawn from it, bit for bit. lm-eval draws few-shot samples and bootstraps with it.

const N: usize = 624;
const M: usize = 397;

/// A generator.
#[derive(Debug, Clone)]
pub(crate) struct PythonRandom {
    state: Box<[u32; N]>,
    next: usize,
}

impl PythonRandom {
    /// `random.Random(seed)`.
    pub(crate) fn new(seed: u64) -> Self {
        // The seed's 32-bit words, the lowest first, at least one.
        let (low, high) = (seed as u32, (seed >> 32) as u32);
        let key: &[u32] = if high == 0 { &[low] } else { &[low, high] };
        let mut state = Box::new([0u32; N]);
        state[0] = 19_650_218;
        for i in 1..N {
            let before = state[i - 1];
            state[i] = 1_812_433_253u32
                .wrapping_mul(before ^ (before >> 30))
                .wrapping_add(i as u32);
        }
        let (mut i, mut j) = (1, 0);
        for _ in 0..N.max(key.len()) {
            let before = state[i - 1];
            state[i] = (state[i] ^ (before ^ (before >> 30)).wrapping_mul(1_664_525))
                .wrapping_add(key[j])
                .wrapping_add(j as u32);
            i += 1;
            j = (j + 1) % key.len();
            if i == N {
                state[0] = state[N - 1];
                i = 1;
            }
        }
        for _ in 0..N - 1 {
            let before = state[i - 1];
            state[i] = (state[i] ^ (before ^ (before >> 30)).wrapping_mul(1_566_083_941)).wrapping_sub(i as u32);
            i += 1;
            if i == N {
                state[0] = state[N - 1];
                i = 1;
            }
        }
        state[0] = 1 << 31;
        Self { state, next: N }
    }

    fn word(&mut self) -> u32 {
        if self.next == N {
            for i in 0..N {
                let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % N] & 0x7fff_ffff);
                let twisted = if y & 1 == 0 { 0 } else { 0x9908_b0df };
                self.state[i] = self.state[(i + M) % N] ^ (y >> 1) ^ twisted;
            }
            self.next = 0;
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// A number in [0, 1) of 53 bits.
    pub(crate) fn random(&mut self) -> f64 {
        let (high, low) = (self.word() >> 5, self.word() >> 6);
        (f64::from(high) * 67_108_864.0 + f64::from(low)) / 9_007_199_254_740_992.0
    }

    /// An index as `choices(range(n))` draws it, with replacement.
    pub(crate) fn choice(&mut self, n: usize) -> usize {
        (self.random() * n as f64) as usize
    }

    /// A number below `n`, which is above 0: as many bits as `n` has, again until it is below.
    fn below(&mut self, n: u32) -> u32 {
        let n_bits = 32 - n.leading_zeros();
        loop {
            let drawn = self.word() >> (32 - n_bits);
            if drawn < n {
                return drawn;
            }
        }
    }

    /// `sample(range(n), k)`: `k` different numbers below `n`. A small population is drawn from a list that shrinks, a
    /// large one by drawing again what was drawn before; where it changes follows CPython's estimate of their sizes.
    pub(crate) fn sample(&mut self, n: u32, k: u32) -> Option<Vec<usize>> {
        if k > n {
            return None;
        }
        let mut n_of_set: u64 = 21;
        if k > 5 {
            // 4 to the power of ceil(log(3 k, 4)).
            let mut power: u64 = 1;
            while power < 3 * u64::from(k) {
                power *= 4;
            }
            n_of_set += power;
        }
        let mut drawn = Vec::with_capacity(k as usize);
        if u64::from(n) <= n_of_set {
            let mut pool: Vec<usize> = (0..n as usize).collect();
            for i in 0..k {
                let at = self.below(n - i) as usize;
                drawn.push(pool[at]);
                pool[at] = pool[(n - i - 1) as usize];
            }
        } else {
            let mut known = std::collections::HashSet::with_capacity(k as usize);
            while drawn.len() < k as usize {
                let at = self.below(n) as usize;
                if known.insert(at) {
                    drawn.push(at);
                }
            }
        }
        Some(drawn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values are those of CPython 3.11.
    #[test]
    fn words_and_numbers_are_pythons() {
        let mut random = PythonRandom::new(1234);
        let words: Vec<u32> = (0..4).map(|_| random.word()).collect();
        assert_eq!(words, [4_150_886_329, 3_342_196_574, 1_892_932_127, 501_869_158]);
        assert_eq!(random.random(), 0.007_491_470_058_587_191);
        let mut random = PythonRandom::new(0);
        assert_eq!(
            [random.word(), random.word(), random.word()],
            [3_626_764_237, 1_654_615_998, 3_255_389_356]
        );
        assert_eq!(PythonRandom::new((1 << 40) + 5).word(), 2_166_296_868);
    }

    #[test]
    fn samples_are_pythons_from_small_and_large_populations() {
        let draw = |sizes: &[(u32, u32)]| -> Vec<Vec<usize>> {
            let mut random = PythonRandom::new(1234);
            sizes.iter().map(|&(n, k)| random.sample(n, k).unwrap()).collect()
        };
        assert_eq!(draw(&[(8, 5); 3]), [[7, 0, 6, 5, 4], [1, 0, 2, 7, 6], [0, 6, 7, 2, 3]]);
        assert_eq!(
            draw(&[(1000, 5); 3]),
            [
                [989, 796, 451, 119, 7],
                [92, 932, 965, 961, 826],
                [596, 35, 687, 709, 85]
            ]
        );
        assert_eq!(
            draw(&[(285, 10); 2]),
            [
                [225, 59, 3, 46, 17, 42, 50, 181, 121, 8],
                [15, 8, 177, 247, 237, 76, 46, 93, 58, 7]
            ]
        );
        // On both sides of where one way changes to the other.
        let edges = draw(&[(21, 3), (22, 3), (85, 6), (86, 6)]);
        assert_eq!(edges[..2], [[14, 3, 0], [2, 18, 1]]);
        assert_eq!(edges[2..], [[10, 12, 45, 30, 2, 3], [2, 44, 82, 79, 61, 78]]);
        assert_eq!(PythonRandom::new(0).sample(3, 4), None);
        assert_eq!(PythonRandom::new(0).sample(3, 0), Some(Vec::new()));
    }

    #[test]
    fn choices_with_replacement_are_pythons() {
        let mut random = PythonRandom::new(7);
        let drawn: Vec<usize> = (0..8).map(|_| random.choice(10)).collect();
        assert_eq!(drawn, [3, 1, 6, 0, 5, 3, 0, 5]);
    }
}
