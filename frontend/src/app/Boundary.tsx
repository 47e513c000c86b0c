import { Component, type ReactNode } from 'react';
import { Notice } from '@/components/Notice';

/** A page that breaks says so, and leaves the header and the other pages standing. */
export class Boundary extends Component<{ children: ReactNode }, { error: Error | null }> {
  override state: { error: Error | null } = { error: null };

  static getDerivedStateFromError(error: Error) {
    return { error };
  }

  override render() {
    const { error } = this.state;
    if (!error) return this.props.children;
    return (
      <Notice
        tone="bad"
        title="This page broke"
        action={
          <button type="button" className="button small" onClick={() => location.reload()}>
            Reload
          </button>
        }
      >
        {error.message}
      </Notice>
    );
  }
}
