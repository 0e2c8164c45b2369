//! Repeated measurements, and tables of them.

/// A measurement, once per repetition. Entries of different figures with the same index belong together.
#[derive(Clone, Debug, Default)]
pub struct Figure(pub Vec<f64>);

impl Figure {
    /// The middle value; the mean of the middle two of an even number. NaN without measurements.
    #[must_use]
    pub fn median(&self) -> f64 {
        let sorted = self.sorted();
        match sorted.len() {
            0 => f64::NAN,
            odd if odd % 2 == 1 => sorted[odd / 2],
            even => f64::midpoint(sorted[even / 2 - 1], sorted[even / 2]),
        }
    }

    /// The ratio to `other` per repetition: a disturbance of both cancels out.
    #[must_use]
    pub fn per(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(a, b)| a / b).collect())
    }

    /// The median with the least and the greatest value, each times `scale` with `digits` digits after the point.
    #[must_use]
    pub fn shown(&self, scale: f64, digits: usize, unit: &str) -> String {
        let sorted = self.sorted();
        let (Some(least), Some(greatest)) = (sorted.first(), sorted.last()) else { return "–".into() };
        let median = self.median() * scale;
        format!("{median:.digits$}{unit} ({:.digits$}–{:.digits$})", least * scale, greatest * scale)
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }
}

/// A markdown table.
#[must_use]
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let head: Vec<String> = head.iter().map(|&cell| cell.to_owned()).collect();
    let rule = format!("|{}\n", "---|".repeat(head.len()));
    line(&head) + &rule + &rows.iter().map(|row| line(row)).collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_value() {
        assert!(Figure(vec![3.0, 1.0, 100.0]).median() == 3.0);
        assert!(Figure(vec![4.0, 1.0, 2.0, 100.0]).median() == 3.0);
        assert!(Figure::default().median().is_nan());
    }

    #[test]
    fn a_ratio_is_taken_by_repetition() {
        let slow_machine = Figure(vec![2.0, 20.0]);
        assert_eq!(slow_machine.per(&Figure(vec![1.0, 10.0])).shown(1.0, 2, ""), "2.00 (2.00–2.00)");
    }

    #[test]
    fn a_table_is_markdown() {
        assert_eq!(table(&["a", "b"], &[vec!["1".into(), "2".into()]]), "| a | b |\n|---|---|\n| 1 | 2 |\n");
    }
}
