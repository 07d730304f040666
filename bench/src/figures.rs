//! Sorted figures, and figures in lines of text, which measuring roles pass to evaluating roles.

use crate::terminal::Failure;

/// The percentile `percent` of figures sorted upwards; `None` if there are none.
pub(crate) fn percentile<T: Copy>(sorted: &[T], percent: usize) -> Option<T> {
    sorted.get(sorted.len() * percent / 100).copied()
}

/// The figure written as `name=…` in a line.
///
/// # Errors
///
/// There is none, or it is not a whole number.
pub(crate) fn number(line: &str, name: &str) -> Result<u64, Failure> {
    let mut fields = line.split_whitespace().filter_map(|field| field.split_once('='));
    let (_, value) = fields.find(|(found, _)| *found == name).ok_or("no such field")?;
    Ok(value.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_figures() {
        let sorted: Vec<u32> = (1..=200).collect();
        assert_eq!((percentile(&sorted, 50), percentile(&sorted, 99)), (Some(101), Some(199)));
        assert_eq!(percentile::<u32>(&[], 50), None);
    }

    #[test]
    fn a_figure_is_found_by_its_whole_name() {
        assert_eq!(number("late_us=3 us=4", "us").unwrap(), 4);
        assert!(number("late_us=3", "us").is_err());
        assert!(number("us=much", "us").is_err());
    }
}
