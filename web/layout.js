/** The grid that shows equal pictures as large as they can be. */

/**
 * @param {number} count pictures
 * @param {number} aspect width / height of a picture
 * @param {{width: number, height: number, gap: number}} space in CSS pixels
 * @returns {{columns: number, rows: number, width: number, height: number}} of the grid, and of one picture
 */
export function bestGrid(count, aspect, { width, height, gap }) {
  let best = { columns: 1, rows: count, width: 0, height: 0 };
  let holes = 0;
  for (let columns = 1; columns <= count; columns++) {
    const rows = Math.ceil(count / columns);
    const across = (width - gap * (columns - 1)) / columns;
    const down = (height - gap * (rows - 1)) / rows;
    const fit = Math.floor(Math.max(0, Math.min(across, down * aspect)));
    const left = columns * rows - count;
    // A full grid wins a tie, then side by side: eyes compare better across than up and down.
    if (fit < best.width || (fit === best.width && left > holes)) continue;
    best = { columns, rows, width: fit, height: Math.floor(fit / aspect) };
    holes = left;
  }
  return best;
}

/** The shape that all frames of a group get. Pictures of several shapes are shown whole inside it. */
export function commonAspect(pictures) {
  const logs = pictures.map((picture) => Math.log(picture.naturalWidth / picture.naturalHeight));
  return Math.exp(logs.reduce((sum, log) => sum + log, 0) / logs.length);
}
