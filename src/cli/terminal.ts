// What a stream can show: its width, and colours where a person looks.
import { styleText } from 'node:util'

type Style = (text: string) => string

/** Styles and width of a stream; plain text and 80 columns where it is no terminal. */
export interface Terminal {
  readonly columns: number
  readonly interactive: boolean
  readonly bold: Style
  readonly dim: Style
  readonly red: Style
  readonly green: Style
  readonly cyan: Style
}

export function terminal(stream: NodeJS.WriteStream): Terminal {
  const interactive = stream.isTTY === true
  const coloured = interactive && (stream.hasColors?.() ?? false)
  const style = (name: 'bold' | 'dim' | 'red' | 'green' | 'cyan'): Style => {
    return coloured ? (text) => styleText(name, text) : (text) => text
  }
  const [bold, dim, red, green, cyan] = [style('bold'), style('dim'), style('red'), style('green'), style('cyan')]
  return { columns: stream.columns ?? 80, interactive, bold, dim, red, green, cyan }
}

/** Text cut to a number of characters, with an ellipsis where something is missing. */
export function cut(text: string, width: number): string {
  const characters = [...text]
  return characters.length <= width ? text : `${characters.slice(0, Math.max(0, width - 1)).join('')}…`
}

/** Text broken into lines of at most a number of characters, at spaces. */
export function wrap(text: string, width: number): string[] {
  const lines = ['']
  for (const word of text.split(' ')) {
    const line = lines.at(-1) ?? ''
    if (line === '') lines[lines.length - 1] = word
    else if (line.length + 1 + word.length <= width) lines[lines.length - 1] = `${line} ${word}`
    else lines.push(word)
  }
  return lines
}
