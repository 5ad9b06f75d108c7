// Published numbers beside ours: a table, and whether the largest difference is small enough.

/**
 * @param {Record<string, number>} published label → value, in logits
 * @param {(label: string) => number} ours
 * @param {number} tolerance the largest difference that passes
 * @returns {{ lines: string[], worst: number, passed: boolean }} NaN, on either side, does not pass
 */
export function compare(published, ours, tolerance) {
  const rows = Object.entries(published).map(([label, value]) => ({ label, value, found: ours(label) }))
  const differences = rows.map(({ value, found }) => Math.abs(found - value))
  const worst = differences.length === 0 ? Number.NaN : Math.max(...differences)
  const cells = (label, ...numbers) => `  ${label.padEnd(10)}${numbers.map((text) => text.padStart(12)).join('')}`
  const lines = [
    cells('component', 'published', 'ours', 'difference'),
    ...rows.map(({ label, value, found }) => cells(label, signed(value), signed(found), signed(found - value, 5))),
  ]
  return { lines, worst, passed: worst <= tolerance }
}

function signed(value, digits = 4) {
  return `${value < 0 ? '−' : '+'}${Math.abs(value).toFixed(digits)}`
}
