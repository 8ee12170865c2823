//! The few statistics that a bench reports.

/// What many measurements of one thing come to.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    pub(crate) n: usize,
}

impl Summary {
    /// `None` of no samples.
    pub(crate) fn of(mut samples: Vec<f64>) -> Option<Self> {
        samples.sort_by(f64::total_cmp);
        let n = samples.len();
        let (low, high) = (samples.get(n.checked_sub(1)? / 2)?, samples.get(n / 2)?);
        let median = f64::midpoint(*low, *high);
        Some(Self {
            median,
            min: *samples.first()?,
            max: *samples.last()?,
            n,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Summary;

    #[test]
    fn median_of_odd_and_even() {
        let median = |samples: &[f64]| Summary::of(samples.to_vec()).map(|all| all.median);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }
}
