//! Rows of `auto_heights`.

use super::{number, text};
use crate::calibration::controller::HeightFactor;
use crate::store::statement::Columns;

/// A tenant and its factor.
pub(in crate::store) fn height(row: &dyn Columns) -> Result<(String, HeightFactor), sqlx::Error> {
    let factor = HeightFactor::from_thousandths(number(row, "factor_milli")?);
    Ok((text(row, "tenant")?, factor))
}
