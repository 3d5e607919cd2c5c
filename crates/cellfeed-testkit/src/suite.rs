//! Runs laws under a watch, and the macro that makes tests of them.

use crate::laws;
use crate::subject::Subject;
use crate::violation::{Law, Violation};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;

impl Law {
    /// Checks a store, on this thread and without a watch.
    ///
    /// # Errors
    /// The first violation.
    pub fn check(self, subject: &Subject) -> Result<(), Violation> {
        match self {
            Self::Agreement => laws::law_1_agreement(subject),
            Self::CanonicalCsr => laws::law_2_canonical_csr(subject),
            Self::Purity => laws::law_3_purity(subject),
            Self::Concurrency => laws::law_4_concurrency(subject),
            Self::Cancellation => laws::law_5_cancellation(subject),
            Self::Bounds => laws::law_6_bounds(subject),
            Self::Distrust => laws::law_7_distrust(subject),
            Self::NoBlocking => laws::law_8_no_blocking(subject),
        }
    }
}

/// Checks a law on one store; a panic or a hang is a violation. What hangs is left behind.
///
/// # Errors
/// The first violation.
pub fn run_one(law: Law, subject: &Subject) -> Result<(), Violation> {
    let (sender, result) = mpsc::channel();
    let work = {
        let subject = subject.clone();
        move || {
            let result = catch_unwind(AssertUnwindSafe(|| law.check(&subject)));
            let _ = sender.send(result.unwrap_or_else(|panic| {
                let message = laws::panic_message(panic.as_ref());
                Err(Violation::new(law, format!("it panicked: {message}")).of(subject.name()))
            }));
        }
    };
    let spawned = thread::Builder::new().name(law.to_string()).spawn(work);
    spawned.map_err(|e| Violation::new(law, format!("cannot start a thread: {e}")))?;
    let timeout = subject.limits.timeout;
    // Law 7 has a watch of its own for each of its many attempts.
    let result = match law {
        Law::Distrust => result.recv().map_err(|_| RecvTimeoutError::Disconnected),
        _ => result.recv_timeout(timeout),
    };
    result.unwrap_or_else(|_| {
        let what = format!("no end within {timeout:?}: a read hangs, or the store is too large");
        Err(Violation::new(law, what).of(subject.name()))
    })
}

/// Checks a law on every store. Law 7 is checked on those with files, of which there must be one.
///
/// # Errors
/// One violation for each store that breaks the law.
pub fn run(law: Law, subjects: &[Subject]) -> Result<(), Vec<Violation>> {
    let applies = |s: &&Subject| law != Law::Distrust || s.damageable.is_some();
    let subjects: Vec<&Subject> = subjects.iter().filter(applies).collect();
    if subjects.is_empty() {
        return Err(vec![Violation::new(law, "there is no store to check it on")]);
    }
    let broken: Vec<_> = subjects.into_iter().filter_map(|s| run_one(law, s).err()).collect();
    if broken.is_empty() { Ok(()) } else { Err(broken) }
}

/// Violations as text, a line each.
#[must_use]
pub fn report(violations: &[Violation]) -> String {
    violations.iter().map(|v| format!("\n  {v}")).collect()
}

/// Makes a module of tests, one a law, for the stores that a function builds.
///
/// ```
/// use cellfeed_testkit::{Subject, conformance, fixtures};
///
/// fn stores() -> Vec<Subject> {
///     fixtures::oracles().into_iter().flat_map(fixtures::memory_subject).collect()
/// }
///
/// conformance!(memory, stores, skip law_7: "a store in memory has no files");
/// # fn main() {}
/// ```
///
/// A law that is skipped is ignored, with the reason, in the tests' output.
#[macro_export]
macro_rules! conformance {
    ($name:ident, $factory:expr $(, skip $law:ident : $why:literal)* $(,)?) => {
        $crate::conformance!(@skip $name, $factory, [] [] [] [] [] [] [] [] $($law $why)*);
    };
    (@skip $n:ident, $f:expr, [] $b:tt $c:tt $d:tt $e:tt $g:tt $h:tt $i:tt law_1 $why:literal $($rest:tt)*) => {
        $crate::conformance!(@skip $n, $f, [#[ignore = $why]] $b $c $d $e $g $h $i $($rest)*);
    };
    (@skip $n:ident, $f:expr, $a:tt [] $c:tt $d:tt $e:tt $g:tt $h:tt $i:tt law_2 $why:literal $($rest:tt)*) => {
        $crate::conformance!(@skip $n, $f, $a [#[ignore = $why]] $c $d $e $g $h $i $($rest)*);
    };
    (@skip $n:ident, $f:expr, $a:tt $b:tt [] $d:tt $e:tt $g:tt $h:tt $i:tt law_3 $why:literal $($rest:tt)*) => {
        $crate::conformance!(@skip $n, $f, $a $b [#[ignore = $why]] $d $e $g $h $i $($rest)*);
    };
    (@skip $n:ident, $f:expr, $a:tt $b:tt $c:tt [] $e:tt $g:tt $h:tt $i:tt law_4 $why:literal $($rest:tt)*) => {
        $crate::conformance!(@skip $n, $f, $a $b $c [#[ignore = $why]] $e $g $h $i $($rest)*);
    };
    (@skip $n:ident, $f:expr, $a:tt $b:tt $c:tt $d:tt [] $g:tt $h:tt $i:tt law_5 $why:literal $($rest:tt)*) => {
        $crate::conformance!(@skip $n, $f, $a $b $c $d [#[ignore = $why]] $g $h $i $($rest)*);
    };
    (@skip $n:ident, $f:expr, $a:tt $b:tt $c:tt $d:tt $e:tt [] $h:tt $i:tt law_6 $why:literal $($rest:tt)*) => {
        $crate::conformance!(@skip $n, $f, $a $b $c $d $e [#[ignore = $why]] $h $i $($rest)*);
    };
    (@skip $n:ident, $f:expr, $a:tt $b:tt $c:tt $d:tt $e:tt $g:tt [] $i:tt law_7 $why:literal $($rest:tt)*) => {
        $crate::conformance!(@skip $n, $f, $a $b $c $d $e $g [#[ignore = $why]] $i $($rest)*);
    };
    (@skip $n:ident, $f:expr, $a:tt $b:tt $c:tt $d:tt $e:tt $g:tt $h:tt [] law_8 $why:literal $($rest:tt)*) => {
        $crate::conformance!(@skip $n, $f, $a $b $c $d $e $g $h [#[ignore = $why]] $($rest)*);
    };
    (@skip $n:ident, $f:expr, $a:tt $b:tt $c:tt $d:tt $e:tt $g:tt $h:tt $i:tt) => {
        mod $n {
            #[allow(unused_imports)]
            use super::*;
            $crate::conformance!(@test law_1_agreement, Agreement, $f, $a);
            $crate::conformance!(@test law_2_canonical_csr, CanonicalCsr, $f, $b);
            $crate::conformance!(@test law_3_purity, Purity, $f, $c);
            $crate::conformance!(@test law_4_concurrency, Concurrency, $f, $d);
            $crate::conformance!(@test law_5_cancellation, Cancellation, $f, $e);
            $crate::conformance!(@test law_6_bounds, Bounds, $f, $g);
            $crate::conformance!(@test law_7_distrust, Distrust, $f, $h);
            $crate::conformance!(@test law_8_no_blocking, NoBlocking, $f, $i);
        }
    };
    (@test $test:ident, $law:ident, $factory:expr, [$($ignore:tt)*]) => {
        #[test]
        $($ignore)*
        #[allow(clippy::panic)]
        fn $test() {
            let stores: ::std::vec::Vec<$crate::Subject> = $factory();
            if let Err(broken) = $crate::suite::run($crate::Law::$law, &stores) {
                panic!("{}", $crate::suite::report(&broken));
            }
        }
    };
}
