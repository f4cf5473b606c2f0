// How much a second picture disturbs an edit of the first, by how the two are told apart.
import { picture } from '../judge.ts';
import { type Scene, sampleEdit, seededRandom } from '../scenes.ts';
import type { Study, Task } from '../study.ts';

/** The second picture shows what the prompt speaks of, on another background. */
function reference(task: Task): Scene {
  const other = sampleEdit(seededRandom(task.seed), 'resize').context!;
  return task.target.thing === undefined ? other : { ...other, thing: task.target.thing };
}

const withReference = (options: object) => (task: Task) => ({ references: [picture(reference(task))], ...options });

export const positions: Study = {
  about:
    'The demo model was trained with one picture. Right is the edit of the first picture, with a second one beside it that shows the object of the answer on another background.',
  kinds: ['background', 'replace', 'remove', 'move', 'resize', 'add'],
  settings: [
    { name: 'one picture', options: () => ({}) },
    { name: 'offset', options: withReference({ referencePositions: 'offset' }) },
    { name: 'index', options: withReference({ referencePositions: 'index' }) },
    { name: 'stitched', options: withReference({ referencePositions: 'stitched' }) },
    {
      name: 'stitched, 16 pixels apart',
      options: withReference({ referencePositions: 'stitched', stitchSpacing: 16 }),
    },
  ],
};
