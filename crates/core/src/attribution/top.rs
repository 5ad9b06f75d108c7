//! A result by neurons cut to those that matter: of every row the k largest of each sign, and one `rest`, summed from
//! the neurons themselves. A neuron that one row keeps is a column for all rows, with its value at each.

use super::component::{Component, Kind, Unit};
use super::{Attribution, Options};
use crate::config::ModelConfig;
use std::collections::BTreeSet;

impl Attribution {
    /// Cuts the neurons as `options.top` says, where it says so.
    pub(crate) fn keep_top(&mut self, options: &Options, config: &ModelConfig) {
        let Some(k) = options.top else { return };
        let all = self.components.take().unwrap_or_else(|| Component::all(Unit::Neuron, config));
        let is_neuron: Vec<bool> = all.iter().map(|c| c.kind == Kind::Neuron).collect();
        let mut kept = BTreeSet::new();
        for row in self.values.chunks_exact(all.len()) {
            kept.extend(strongest(row, &is_neuron, k));
        }
        let columns: Vec<usize> = (0..all.len()).filter(|c| !is_neuron[*c] || kept.contains(c)).collect();
        let mut values = Vec::with_capacity(self.rows.len() * (columns.len() + 1));
        for row in self.values.chunks_exact(all.len()) {
            values.extend(columns.iter().map(|c| row[*c]));
            let rest: f64 =
                (0..row.len()).filter(|c| is_neuron[*c] && !kept.contains(c)).map(|c| f64::from(row[c])).sum();
            values.push(rest as f32);
        }
        self.values = values;
        self.components = Some(columns.into_iter().map(|c| all[c]).chain([Component::REST]).collect());
    }
}

/// The k largest positive and the k most negative neurons of a row; of equal ones the first.
fn strongest(row: &[f32], is_neuron: &[bool], k: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..row.len()).filter(|c| is_neuron[*c]).collect();
    if 2 * k < order.len() {
        let largest = |a: &usize, b: &usize| row[*b].total_cmp(&row[*a]).then(a.cmp(b));
        let smallest = |a: &usize, b: &usize| row[*a].total_cmp(&row[*b]).then(a.cmp(b));
        order.select_nth_unstable_by(k, largest);
        let raised: Vec<usize> = order[..k].to_vec();
        order.select_nth_unstable_by(k, smallest);
        order.truncate(k);
        order.extend(raised);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strongest_of_each_sign_by_hand() {
        let row = [9.0, 1.0, -5.0, 3.0, 0.5, -0.25, 3.0, -9.0];
        let is_neuron = [false, true, true, true, true, true, true, false];
        let mut found = strongest(&row, &is_neuron, 2);
        found.sort_unstable();
        assert_eq!(found, [2, 3, 5, 6]);
        let mut found = strongest(&row, &is_neuron, 1);
        found.sort_unstable();
        assert_eq!(found, [2, 3]);
        assert_eq!(strongest(&row, &is_neuron, 3).len(), 6);
        assert_eq!(strongest(&row, &is_neuron, 100).len(), 6);
    }
}
