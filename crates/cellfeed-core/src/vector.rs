//! Loops as instructions for the widest vectors that the processor at hand has, whatever the build was
//! made for.
#![allow(unsafe_code)]

/// Work whose loops the compiler turns into vector instructions, given to [`run`].
pub trait Kernel {
    /// What it answers.
    type Answer;

    /// Does the work. This is to be `#[inline(always)]`, and so is what it calls and what has its loops:
    /// a function that is called stays as the build has it.
    fn run(self) -> Self::Answer;
}

/// Runs a kernel compiled for AVX2 and BMI2 where the processor has them, else as the build is.
#[inline]
pub fn run<K: Kernel>(kernel: K) -> K::Answer {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi2") {
        // SAFETY: the processor has the instructions, as was just asked; nothing else is asked for.
        return unsafe { with_avx2(kernel) };
    }
    kernel.run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi2")]
fn with_avx2<K: Kernel>(kernel: K) -> K::Answer {
    kernel.run()
}

/// Appends what becomes of each item.
#[inline]
pub fn extend<S: Copy, T>(out: &mut Vec<T>, items: &[S], each: impl Fn(S) -> T) {
    out.reserve(items.len());
    run(Extend { out, items, each });
}

struct Extend<'a, S, T, F> {
    out: &'a mut Vec<T>,
    items: &'a [S],
    each: F,
}

impl<S: Copy, T, F: Fn(S) -> T> Kernel for Extend<'_, S, T, F> {
    type Answer = ();

    // `Vec::extend` is a call, in which the wide instructions would be lost.
    #[inline(always)]
    fn run(self) {
        let n = self.items.len().min(self.out.capacity() - self.out.len());
        let places = &mut self.out.spare_capacity_mut()[..n];
        for (place, &item) in places.iter_mut().zip(self.items) {
            place.write((self.each)(item));
        }
        // SAFETY: the `n` items behind the length are within the capacity, and were just written.
        unsafe { self.out.set_len(self.out.len() + n) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_of_any_number_are_appended() {
        for n in [0usize, 1, 7, 31, 32, 33, 1000] {
            let items: Vec<u16> = (0..n).map(|i| (i * 65_521 % 65_536) as u16).collect();
            let mut out = vec![-1i32];
            extend(&mut out, &items, i32::from);
            extend(&mut out, &items, |item| i32::from(item) + 1);
            let twice = items.iter().map(|&i| i32::from(i));
            let want: Vec<i32> =
                std::iter::once(-1).chain(twice.clone()).chain(twice.map(|i| i + 1)).collect();
            assert_eq!(out, want);
        }
    }

    #[test]
    fn a_panic_within_leaves_what_was_there() {
        let mut out = vec![1u8];
        let work = std::panic::AssertUnwindSafe(|| {
            extend(&mut out, &[1u8, 2, 3], |item| {
                assert!(item < 3);
                item
            });
        });
        assert!(std::panic::catch_unwind(work).is_err());
        assert_eq!(out, [1]);
    }
}
